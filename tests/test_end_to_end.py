"""From a data set on disk to drawn boxes: train, stop, resume, evaluate, predict, from the command line and Python.

The detector learns eight drawn images by heart, so that what comes out at the end can be compared with what was
drawn: a fault anywhere on the way, in targets, losses, average, postprocessing or metrics, shows as a low AP.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import boxwright
from boxwright.checkpoints import read_checkpoint
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.ops.boxes import iou
from boxwright.training import loop
from boxwright.training.log import read_log
from boxwright.training.step import train_step
from boxwright_runtime.detections import Detections
from sparse_ids import NAMES, draw_with_sparse_ids

RECIPE = {
    "backbone": {"name": "resnet_vd", "depth": 18, "width": 16},
    "neck": {"name": "hybrid_encoder", "hidden_dim": 48, "num_heads": 4, "feedforward_dim": 96, "expansion": 0.5},
    "head": {
        "name": "rtdetr",
        "hidden_dim": 48,
        "num_queries": 30,
        "decoder": {"num_heads": 4, "feedforward_dim": 96, "num_layers": 2},
        "denoising": {"num_queries": 20},
    },
    "input": {"image_size": 96},
    "augment": {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0},
    "train": {
        "steps": 130,
        "batch_size": 8,
        "lr": 0.002,
        "ema_decay": 0.95,
        "schedule": {"warmup_steps": 20, "evaluations": 2},
        "batches": {"multi_scale": 0.0},
        "runtime": {"device": "cpu", "precision": "float32"},
    },
}

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a recipe."""
    folder = tmp_path_factory.mktemp("end_to_end")
    draw_with_sparse_ids(folder / "data", train=8, val=6, image_size=96, seed=2)
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def run(workspace: Path) -> Path:
    """A run that was stopped at step 40 and went on, measured on the images that it is trained on."""
    data = workspace / "data"
    learned = ["--val-annotations", str(data / "annotations" / "train.json"), "--val-images", str(data / "images")]
    train = ["train", str(workspace / "small.yaml"), "--data", str(data), *learned, "--out", str(workspace / "run")]
    with pytest.MonkeyPatch.context() as patch:
        calls = iter(range(1, 1000))

        def interrupted(*arguments: Any) -> Any:
            if next(calls) == 40:
                signal.raise_signal(signal.SIGINT)
            return train_step(*arguments)

        patch.setattr(loop, "train_step", interrupted)
        assert main(train) == 130
    assert read_checkpoint(workspace / "run" / "last.pt")["progress"]["step"] == 40
    assert main([*train, "--resume"]) == 0
    assert read_checkpoint(workspace / "run" / "last.pt")["progress"]["step"] == 130
    return workspace / "run"


@pytest.fixture(scope="module")
def detector(run: Path) -> Detector:
    return boxwright.load(run)


def evaluate(run: Path, data: Path, split: str, out: Path) -> dict[str, Any]:
    command = ["eval", str(run), "--data", str(data), "--split", split, "--batch-size", "1", "--json", str(out)]
    assert main(command) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def predict(run: Path, out: Path, *paths: str | Path, threshold: float = 0.0) -> list[dict[str, Any]]:
    options = ["--threshold", str(threshold), "--out", str(out / "drawn"), "--json", str(out / "found.json")]
    assert main(["predict", str(run), *map(str, paths), *options]) == 0
    content: list[dict[str, Any]] = json.loads((out / "found.json").read_text())
    return content


def test_it_learns(run: Path) -> None:
    rows = read_log(run)
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    evaluated = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluated] == [65, 130]
    assert evaluated[-1]["AP50"] > 0.95
    assert evaluated[-1]["AP"] > 0.9


def test_what_is_drawn_is_found(detector: Detector, workspace: Path) -> None:
    """Nearly every object, with its class and nearly its box; and of what is found nearly all is there."""
    document = json.loads((workspace / "data" / "annotations" / "train.json").read_text())
    of_objects, of_detections = [], []
    for image in document["images"]:
        expected = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        x, y, w, h = torch.tensor([a["bbox"] for a in expected], dtype=torch.float32).reshape(-1, 4).T
        ids = torch.tensor([a["category_id"] for a in expected])
        actual = detector.predict(workspace / "data" / "images" / image["file_name"], threshold=0.5)
        same = ids[:, None] == torch.tensor(list(NAMES))[actual.labels]
        overlaps = iou_matrix(torch.stack((x, y, x + w, y + h), 1), actual.boxes) * same
        of_objects += [max(row, default=0.0) for row in overlaps.tolist()]
        of_detections += [max(row, default=0.0) for row in overlaps.T.tolist()]
    assert len(of_objects) == len(document["annotations"]) > 20
    assert np.mean(np.array(of_objects) > 0.6) > 0.95
    assert np.mean(np.array(of_detections) > 0.6) > 0.8


def iou_matrix(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(len(first)), torch.arange(len(second)), indexing="ij")
    return iou(first[rows.flatten()], second[columns.flatten()]).view(len(first), len(second))


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_json_of_predict_has_the_numbers_of_eval(run: Path, workspace: Path, tmp_path: Path, split: str) -> None:
    """Predictions of whole folders, joined with the annotations by file name, in pycocotools."""
    annotations = workspace / "data" / "annotations" / f"{split}.json"
    reported = evaluate(run, workspace / "data", split, tmp_path / "metrics.json")
    rows = predict(run, tmp_path, workspace / "data" / "images" / f"{split}_*.jpg")
    id_of = {image["file_name"]: image["id"] for image in json.loads(annotations.read_text())["images"]}
    assert {row["file_name"] for row in rows} == set(id_of)
    ground_truth = COCO(str(annotations))
    evaluator = COCOeval(
        ground_truth, ground_truth.loadRes([{**row, "image_id": id_of[row["file_name"]]} for row in rows]), "bbox"
    )
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    assert [reported[name] for name in NUMBERS] == pytest.approx(evaluator.stats.tolist(), abs=1e-6)
    assert list(reported) == [*NUMBERS, "per_class", "selection", "findings"]
    for row, precision in zip(reported["per_class"], np.moveaxis(evaluator.eval["precision"], 2, 0), strict=True):
        defined = precision[:, :, 0, 2]
        assert row["name"] == NAMES[row["category_id"]]
        assert row["AP"] == pytest.approx(defined[defined > -1].mean() if (defined > -1).any() else -1, abs=1e-6)
    if split == "train":
        assert reported["AP50"] > 0.95


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("images/val_00001.jpg", ["val_00001.jpg"]),
        ("images/val_0000[13].jpg", ["val_00001.jpg", "val_00003.jpg"]),
        ("images", [f"{split}_{i:05}.jpg" for split, count in (("train", 8), ("val", 6)) for i in range(count)]),
    ],
)
def test_a_file_a_glob_and_a_folder(run: Path, workspace: Path, tmp_path: Path, path: str, names: list[str]) -> None:
    rows = predict(run, tmp_path, workspace / "data" / path)
    assert list(dict.fromkeys(row["file_name"] for row in rows)) == names
    assert sorted(drawn.name for drawn in (tmp_path / "drawn").iterdir()) == names
    for row in rows:
        assert list(row) == ["file_name", "category_id", "category_name", "bbox", "score"]
        assert NAMES[row["category_id"]] == row["category_name"]
        with Image.open(workspace / "data" / "images" / row["file_name"]) as image:
            width, height = image.size
        x, y, w, h = row["bbox"]
        assert min(x, y, w, h) >= 0
        assert x + w <= width + 1e-4
        assert y + h <= height + 1e-4


class TestPython:
    @pytest.fixture
    def path(self, workspace: Path) -> Path:
        return workspace / "data" / "images" / "train_00003.jpg"

    @pytest.fixture
    def expected(self, detector: Detector, path: Path) -> Detections:
        actual = detector.predict(path)
        assert actual.scores[0] > 0.5
        return actual

    @pytest.mark.parametrize("form", ["text", "PIL", "array", "tensor", "floats", "float tensor"])
    def test_every_form_of_an_image(self, detector: Detector, path: Path, expected: Detections, form: str) -> None:
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
            forms: dict[str, Any] = {
                "text": str(path),
                "PIL": image.copy(),
                "array": array,
                "tensor": torch.tensor(array).permute(2, 0, 1),
                "floats": array / 255,
                "float tensor": torch.tensor(array).permute(2, 0, 1).float() / 255,
            }
        actual = detector.predict(forms[form])
        assert isinstance(actual, Detections)
        for field in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(actual, field), getattr(expected, field)), field

    def test_several_images_in_order(
        self, detector: Detector, path: Path, workspace: Path, expected: Detections
    ) -> None:
        other = workspace / "data" / "images" / "val_00000.jpg"
        actual = detector.predict([other, path, other], batch_size=2)
        assert [len(detections.scores) for detections in actual] == [180, 180, 180]
        for one, two in ((actual[0], actual[2]), (actual[1], expected)):
            torch.testing.assert_close(one.scores, two.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(one.boxes[:4], two.boxes[:4], rtol=0, atol=1e-2)
        assert detector.predict([]) == []

    def test_a_batch_of_four_dimensions(self, detector: Detector, path: Path, expected: Detections) -> None:
        with Image.open(path) as image:
            tensor = torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1)
        (actual,) = detector.predict(tensor[None])
        assert torch.equal(actual.boxes, expected.boxes)

    def test_always_in_evaluation_mode(self, detector: Detector, path: Path, expected: Detections) -> None:
        detector.train()
        try:
            actual = detector.predict(path)
            assert detector.training
        finally:
            detector.eval()
        assert torch.equal(actual.scores, expected.scores)

    def test_a_fresh_detector_of_the_same_recipe(self, detector: Detector, run: Path, path: Path) -> None:
        """``build`` gives the same network, with weights that have learned nothing."""
        fresh = boxwright.build(run / "recipe.yaml", num_classes=6)
        assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in detector.named_parameters()}
        assert fresh.predict(path).scores.max() < 0.5
        fresh.load_state_dict(detector.state_dict())
        assert torch.equal(fresh.predict(path).boxes, detector.predict(path).boxes)
