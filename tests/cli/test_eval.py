"""``boxwright eval``: the numbers of a data set, on the terminal and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import boxwright
from boxwright.cli.main import main
from boxwright.data.loading.loader import eval_loader
from boxwright.data.open import open_data
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.training.log import read_log
from sparse_ids import NAMES

Capture = pytest.CaptureFixture[str]

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def evaluate(model: Path, *arguments: str | Path, out: Path) -> dict[str, Any]:
    assert main(["eval", str(model), *map(str, arguments), "--json", str(out)]) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_the_json_has_the_numbers_and_a_row_per_class(trained: Path, drawn: Path, tmp_path: Path) -> None:
    """The file's folder is made where there is none, and nothing else is left in it."""
    out = tmp_path / "new" / "metrics.json"
    metrics = evaluate(trained, "--data", drawn, out=out)
    assert list(metrics) == [*NUMBERS, "per_class", "selection", "findings"]
    assert all(isinstance(metrics[name], float) and -1 <= metrics[name] <= 1 for name in NUMBERS)
    assert [(row["category_id"], row["name"]) for row in metrics["per_class"]] == list(NAMES.items())
    columns = ["name", "category_id", "num_objects", "AP", "AP50", "APs", "APm", "APl", "AP75", "AR"]
    assert list(metrics["per_class"][0]) == columns
    document = json.loads((drawn / "annotations" / "val.json").read_text())
    for row in metrics["per_class"]:
        of_class = [a for a in document["annotations"] if a["category_id"] == row["category_id"]]
        assert row["num_objects"] == len(of_class)
        assert (row["AP"] == -1) == (not of_class)
    assert [path.name for path in out.parent.iterdir()] == ["metrics.json"]


def test_the_best_checkpoint_has_the_numbers_of_the_training(trained: Path, drawn: Path, tmp_path: Path) -> None:
    metrics = evaluate(trained / "best.safetensors", "--data", drawn, out=tmp_path / "x.json")
    best = max((row for row in read_log(trained) if row["kind"] == "eval"), key=lambda row: row["AP"])
    assert {name: metrics[name] for name in NUMBERS} == pytest.approx({name: best[name] for name in NUMBERS}, abs=1e-6)


def test_the_quality_of_selected_queries(trained: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    """Counted again, query by query, on the detector as it is loaded; over all batches."""
    metrics = evaluate(trained, "--data", drawn, "--batch-size", "2", out=tmp_path / "x.json")["selection"]
    detector = boxwright.load(trained).eval()
    selected = confident = both = 0
    for batch in eval_loader(open_data(drawn, "val"), input_format=detector.input_format, batch_size=1):
        with torch.no_grad():
            output = detector(batch.images)
        boxes = cxcywh_to_xyxy(output.selected_boxes_cxcywh_norm[0] * batch.images.shape[-1])
        for logits, box in zip(output.selected_logits[0], boxes, strict=True):
            selected += 1
            if logits.sigmoid().max() > 0.5:
                confident += 1
                overlaps = torchvision.ops.box_iou(box[None], batch.targets[0].boxes)
                both += bool((overlaps > 0.5).any())
    assert metrics == {"selected": selected, "Prop_cls": confident / selected, "Prop_both": both / selected}
    assert f"of {selected:,} selected queries {confident / selected:.2%} have a score above" in capsys.readouterr().out


def test_the_tables(trained: Path, drawn: Path, capsys: Capture) -> None:
    assert main(["eval", str(trained), "--data", str(drawn)]) == 0
    captured = capsys.readouterr()
    for name in (*NUMBERS, *NAMES.values()):
        assert name in captured.out
    assert all(line.startswith("note: ") for line in captured.err.splitlines())


def test_another_split_and_explicit_files(trained: Path, drawn: Path, tmp_path: Path) -> None:
    split = evaluate(trained, "--data", drawn, "--split", "train", out=tmp_path / "a.json")
    annotations = drawn / "annotations" / "train.json"
    files = evaluate(trained, "--annotations", annotations, "--images", drawn / "images", out=tmp_path / "b.json")
    assert split == files
    assert sum(row["num_objects"] for row in split["per_class"]) == len(
        json.loads(annotations.read_text())["annotations"]
    )


def test_images_are_measured_alike_in_any_batch(trained: Path, drawn: Path, tmp_path: Path) -> None:
    one = evaluate(trained, "--data", drawn, "--batch-size", "1", out=tmp_path / "a.json")
    four = evaluate(trained, "--data", drawn, "--batch-size", "4", "--workers", "1", out=tmp_path / "b.json")
    assert {n: one[n] for n in NUMBERS} == pytest.approx({n: four[n] for n in NUMBERS}, abs=1e-4)


def test_categories_are_matched_by_name(trained: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    """The data set may number its classes in another way than the one that was trained on."""
    expected = evaluate(trained, "--data", drawn, out=tmp_path / "a.json")
    shutil.copytree(drawn, tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "val.json"
    document = json.loads(file.read_text())
    for entry in (*document["categories"], *document["annotations"]):
        key = "category_id" if "category_id" in entry else "id"
        entry[key] = 200 - entry[key]
    file.write_text(json.dumps(document))
    metrics = evaluate(trained, "--data", tmp_path / "set", out=tmp_path / "b.json")
    assert metrics == expected
    printed = capsys.readouterr().err
    assert "6 category ids differ from the model's, matched by name: 'circle' (107 here, 93 there), " in printed


def test_an_older_file_is_replaced(trained: Path, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old" * 10_000)
    assert "AP" in evaluate(trained, "--data", drawn, out=tmp_path / "x.json")


def test_detections_that_are_saved_have_the_numbers_of_the_model(
    rectangle_run: Path, rectangles: Path, tmp_path: Path, capsys: Capture
) -> None:
    """With the ids of the annotation file, and without images: these are not there."""
    saved, annotations = tmp_path / "new" / "detections.json", tmp_path / "gt.json"
    document = json.loads((rectangles / "annotations" / "val.json").read_text())
    renumbered = {one["id"]: one["id"] + 40 for one in document["categories"]}
    for one in document["categories"]:
        one["id"] = renumbered[one["id"]]
    for one in document["annotations"]:
        one["category_id"] = renumbered[one["category_id"]]
    annotations.write_text(json.dumps(document))
    images = ["--images", rectangles / "images"]
    numbers = evaluate(
        rectangle_run, "--annotations", annotations, *images, "--save-detections", saved, out=tmp_path / "a"
    )
    rows = json.loads(saved.read_text())
    assert {row["category_id"] for row in rows} <= set(renumbered.values())
    assert {row["image_id"] for row in rows} == {one["id"] for one in document["images"]}
    capsys.readouterr()
    again = ["eval", "--detections", str(saved), "--annotations", str(annotations), "--json", str(tmp_path / "b")]
    assert main(again) == 0
    captured = capsys.readouterr()
    assert "AP50" in captured.out
    of_file = json.loads((tmp_path / "b").read_text())
    assert {name: of_file[name] for name in NUMBERS} == {name: numbers[name] for name in NUMBERS}
    assert numbers["AP50"] > 0.1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "what is measured? give MODEL, or --detections FILE"),
        (["run", "--detections", "x.json"], "either MODEL or --detections is measured"),
        (["--detections", "x.json", "--save-detections", "y.json"], "--save-detections is for models"),
        (["--detections", "x.json", "--head.num_queries", "5"], "--head.num-queries is for models"),
        (["--detections", "x.json"], "x.json: no such results file"),
    ],
)
def test_what_is_measured(
    typed: list[str], message: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()  # a model that is not there is an error before
    assert main(["eval", *typed, "--data", str(drawn)]) == 2
    assert message in capsys.readouterr().err


def test_causes_of_lost_precision_are_printed(tmp_path: Path, capsys: Capture) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in range(24)]
    objects = [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600} for i in range(24)]
    categories = [{"id": 1, "name": "boat"}]
    annotations, results, out = tmp_path / "gt.json", tmp_path / "results.json", tmp_path / "x.json"
    annotations.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    rows = [{"image_id": i, "category_id": 1, "bbox": [20 * (i % 2), 0, 40, 40], "score": 0.9} for i in range(24)]
    results.write_text(json.dumps(rows))
    assert main(["eval", "--detections", str(results), "--annotations", str(annotations), "--json", str(out)]) == 0
    text = "100 % of the lost AP50: boxes that are off (IoU 0.1 to 0.5), 12 of them above the thresholds of the best F1"
    assert f"1. {text}" in " ".join(capsys.readouterr().out.split())
    (finding,) = json.loads(out.read_text())["findings"]
    assert (finding["text"], finding["kind"], finding["num_errors"]) == (text, "localization", 12)
