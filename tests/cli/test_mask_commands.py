"""Masks through the commands: trained on, measured, predicted, written and drawn; and lines on limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import boxwright
from boxwright.checkpoints import read_checkpoint
from boxwright.cli.main import main
from boxwright.ops.masks import decode_mask
from boxwright.training.log import read_log
from masked_rtdetr import MaskedRTDETR, ellipse

Capture = pytest.CaptureFixture[str]
Recipe = Callable[..., Path]


@pytest.fixture(scope="module")
def masked_recipe(trained: Path) -> Recipe:
    """Writes a recipe of a detector with masks, that trains in seconds, into a folder."""
    plain = yaml.safe_load((trained.parent / "tiny.yaml").read_text())

    def write(folder: Path, **head: Any) -> Path:
        path = folder / "masked.yaml"
        options = {**plain["head"], "name": "masked_rtdetr:MaskedRTDETR", **head}
        path.write_text(yaml.safe_dump({**plain, "head": options}))
        return path

    return write


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, drawn: Path, masked_recipe: Recipe) -> Path:
    """The folder of a finished run of a detector with masks; not to be written to."""
    folder = tmp_path_factory.mktemp("masked")
    assert main(["train", str(masked_recipe(folder)), "--data", str(drawn), "--out", str(folder / "run")]) == 0
    return folder / "run"


def evaluated(model: Path, data: Path, out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["eval", str(model), "--data", str(data), "--json", str(out), *arguments]) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_a_detector_says_whether_it_needs_masks(masked: Path, trained: Path) -> None:
    assert isinstance(boxwright.load(masked).head, MaskedRTDETR)
    assert boxwright.load(masked).needs_masks
    assert boxwright.load(masked).fold().needs_masks
    assert not boxwright.load(trained).needs_masks


def test_training_logs_masks_and_keeps_the_best_of_them(masked: Path) -> None:
    rows = [row for row in read_log(masked) if row["kind"] == "eval"]
    assert len(rows) == 2
    assert all(0 <= row["segm"]["AP"] <= 1 for row in rows)
    assert read_checkpoint(masked / "last.pt")["progress"]["best"] == max(row["segm"]["AP"] for row in rows)


def test_the_best_is_the_best_of_masks(
    tmp_path: Path, drawn: Path, masked_recipe: Recipe, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where boxes become worse."""
    measured = iter([(0.5, 0.1), (0.3, 0.2), (0.9, 0.15)])

    def measure(*_: Any, **__: Any) -> dict[str, Any]:
        boxes, masks = next(measured)
        return {"AP": boxes, "AP50": boxes, "segm": {"AP": masks, "AP50": masks}}

    monkeypatch.setattr("boxwright.workflows.validation.Validation.__call__", measure)
    arguments = ["--data", str(drawn), "--out", str(tmp_path / "run"), "--train.schedule.evaluations", "3"]
    assert main(["train", str(masked_recipe(tmp_path)), *arguments]) == 0
    assert read_checkpoint(tmp_path / "run" / "best.safetensors")["progress"]["step"] == 4
    printed = capsys.readouterr().err
    assert "step 4/6  AP 0.300  AP50 0.300  mask AP 0.200  mask AP50 0.200  best so far\n" in printed
    assert "step 6/6  AP 0.900  AP50 0.900  mask AP 0.150  mask AP50 0.150\n" in printed
    assert "best mask AP 0.200" in printed


def test_both_kinds_of_metrics_are_printed_and_written(
    masked: Path, drawn: Path, tmp_path: Path, capsys: Capture
) -> None:
    # In the precision of the run, whatever the machine is faster in.
    metrics = evaluated(masked, drawn, tmp_path / "x.json", "--precision", "float32")
    assert list(metrics["segm"]) == [*list(metrics)[:12], "per_class"]
    assert len(metrics["segm"]["per_class"]) == 6
    best = max((row for row in read_log(masked) if row["kind"] == "eval"), key=lambda row: row["segm"]["AP"])
    assert metrics["segm"]["AP"] == pytest.approx(best["segm"]["AP"], abs=1e-6)
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert printed.index("boxes") < printed.index("masks")


def test_json_of_predict_decodes_to_the_mask(
    masked: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = drawn / "images" / "val_00000.jpg"
    assert main(["predict", str(masked), str(image), "--threshold", "0.01", "--json", "detections.json"]) == 0
    rows = json.loads(Path("detections.json").read_text())
    assert rows
    with Image.open(image) as image:
        original = np.asarray(image.convert("RGB")).astype(int)
    for row in rows:
        assert list(row) == ["file_name", "category_id", "category_name", "bbox", "score", "segmentation"]
        assert row["segmentation"]["size"] == list(original.shape[:2])
        x, y, w, h = row["bbox"]
        expected = ellipse(torch.tensor([x, y, x + w, y + h]), *original.shape[:2])
        assert (decode_mask(row["segmentation"]) != expected).float().mean() < 0.005
    with Image.open("predictions/val_00000.jpg") as image:
        assert np.abs(np.asarray(image).astype(int)[: original.shape[0], : original.shape[1]] - original).mean() > 1


def test_python_gives_masks_with_the_threshold(masked: Path, drawn: Path) -> None:
    images = [drawn / "images" / f"val_0000{i}.jpg" for i in range(3)]
    detector = boxwright.load(masked)
    everything = detector.predict(images)
    limit = float(torch.cat([one.scores for one in everything]).median())
    for one, some in zip(everything, detector.predict(images, threshold=limit, batch_size=2), strict=True):
        assert one.masks is not None
        above = [mask for mask, score in zip(one.masks, one.scores, strict=True) if score >= limit]
        assert some.masks == tuple(above)


@pytest.fixture
def stripped(data: Path) -> Callable[..., Path]:
    """The drawn set, some segmentations of a split changed."""

    def strip(split: str, segmentation: Any = None, *, count: int = 1) -> Path:
        file = data / "annotations" / f"{split}.json"
        document = json.loads(file.read_text())
        for annotation in document["annotations"][:count]:
            annotation["segmentation"] = segmentation
        file.write_text(json.dumps(document))
        return data

    return strip


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_without_masks_are_refused_before_training(
    stripped, refused, here: Path, masked_recipe: Recipe, split: str
) -> None:
    data = stripped(split, count=3)
    line = refused(["train", str(masked_recipe(here)), "--data", str(data), "--out", "run"])
    expected = rf"{data}/annotations/{split}\.json: 3 of \d+ annotations have no segmentation, and this detector needs "
    assert re.match(expected + r"masks \(the first is annotation \d+ of image '\w+\.jpg'\); complete the file", line)


def test_broken_masks_are_refused_where_masks_are_needed_only(stripped, refused, masked: Path, trained: Path) -> None:
    data = stripped("val", [[1, 2, 3, 4]])
    line = refused(["eval", str(masked), "--data", str(data)])
    assert re.search(
        r"val\.json: annotation \d+ of image '\w+\.jpg': a polygon is a list of at least six numbers", line
    )
    assert main(["eval", str(trained), "--data", str(data)]) == 0


def crowded(data: Path) -> Path:
    """The annotation file of ``val``, with 140 objects in its first image and none in the others."""
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    image = document["images"][0]["id"]
    square = {"image_id": image, "category_id": document["categories"][0]["id"], "bbox": [1, 1, 9, 9], "area": 81}
    square["segmentation"] = [[1, 1, 10, 1, 10, 10, 1, 10]]
    document["annotations"] = [{**square, "id": 1 + i} for i in range(140)]
    file.write_text(json.dumps(document))
    return file


def test_limits_are_noted_with_the_number_of_objects_they_hide(
    data: Path, tmp_path: Path, masked_recipe: Recipe, capsys: Capture
) -> None:
    file = crowded(data)
    recipe = masked_recipe(tmp_path, max_detections=110)
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--data", str(data), "--out", str(run), "--train.steps", "1"]) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if f"note: {file}" in line and "more than" in line]
    beyond = f"note: {file}: 1 of 6 images have more than"
    assert printed == [
        f"{beyond} 20 objects: 120 of 140 objects cannot be found (head.num_queries is 20 in prediction; the most in "
        "an image are 140): raise --head.num_queries",
        f"{beyond} 110 objects: 30 of 140 objects cannot be found (head.max_detections is 110 in prediction; the most "
        "in an image are 140): raise --head.max_detections",
        f"note: {file}: Images with more than 100 objects of one class: 1. COCO counts the best 100 detections per "
        "image and class, so 40 of 140 objects cannot be found, and AR100 cannot reach 1. "
        "`boxwright eval --max-detections N` counts more.",
    ]

    metrics = evaluated(run, data, tmp_path / "x.json")
    captured = capsys.readouterr()
    limit = "(head.max_detections is 110 in prediction; the most in an image are 140): raise --max-detections\n"
    assert limit in captured.err
    assert "so 40 of 140 objects cannot be found" in " ".join(captured.out.split())
    assert "AR100" in metrics

    metrics = evaluated(run, data, tmp_path / "x.json", "--max-detections", "140")
    captured = capsys.readouterr()
    assert "AR140" in metrics
    assert "AR100" not in metrics
    assert "max_detections is" not in captured.err
    assert "the numbers are not COCO's" in " ".join(captured.out.split())


def test_limits_of_proposals_are_noted(data: Path, tmp_path: Path, capsys: Capture) -> None:
    file = crowded(data)
    recipe = {
        "backbone": {"name": "resnet", "depth": 18, "width": 8},
        "neck": {"name": "fpn", "out_channels": 8},
        "head": {
            "name": "faster_rcnn",
            "rpn": {"pre_nms_top_k": [200, 130], "post_nms_top_k": [200, 30]},
            "boxes": {"hidden_dim": 8},
            "detection": {"max_detections": 200},
        },
        "input": {"image_size": 64},
        "train": {
            "steps": 1,
            "batch_size": 2,
            "schedule": {"evaluations": 1},
            "batches": {"multi_scale": 0.0},
            "runtime": {"device": "cpu"},
        },
    }
    (tmp_path / "two_stages.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "two_stages.yaml"), "--data", str(data), "--out", str(run)]) == 0
    lines = [
        f"note: {file}: 1 of 6 images have more than 130 objects: 10 of 140 objects cannot be found where those of an "
        "image share a level, as objects of one size do (head.rpn.pre_nms_top_k is 130 in prediction; the most "
        "in an image are 140): raise --",
        f"note: {file}: 1 of 6 images have more than 30 objects: 110 of 140 objects cannot be found "
        "(head.rpn.post_nms_top_k is 30 in prediction; the most in an image are 140): raise --",
    ]
    printed = capsys.readouterr().err
    for line, option in zip(lines, ("rpn.pre_nms_top_k", "rpn.post_nms_top_k"), strict=True):
        assert f"{line}head.{option}\n" in printed
    assert main(["eval", str(run), "--data", str(data)]) == 0
    printed = capsys.readouterr().err
    assert all(f"{line}max-detections\n" in printed for line in lines)
    assert main(["eval", str(run), "--data", str(data), "--max-detections", "140"]) == 0
    assert "cannot be found (" not in capsys.readouterr().err


def test_fewer_detections_than_cocos_are_refused(masked: Path, drawn: Path, refused) -> None:
    line = refused(["eval", str(masked), "--data", str(drawn), "--max-detections", "99"])
    assert "--max-detections is at least COCO's 100, not 99" in line
