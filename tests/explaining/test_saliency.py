"""Saliency: it lies where an object is, and the score follows it more than pixels by chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import boxwright
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.explaining.saliency import (
    ExplainedImage,
    ExplainedObject,
    gradient_saliency,
    measure_faithfulness,
    rise_saliency,
)
from boxwright_runtime.images import read_image

Capture = pytest.CaptureFixture[str]


class Scene:
    """The image of the best detection of a trained detector."""

    def __init__(self, detector: Detector, path: Path) -> None:
        self.detector, self.path, self.image = detector, path, read_image(path)
        best = next(iter(detector.predict(self.image)))
        self.target = ExplainedObject(best.box, best.label, best.score)

    def inside(self) -> np.ndarray:
        """True on the pixels of the object's box."""
        x1, y1, x2, y2 = (round(side) for side in self.target.box)
        mask = np.zeros(self.image.shape[:2], dtype=bool)
        mask[y1:y2, x1:x2] = True
        return mask


@pytest.fixture(scope="module")
def scene(rectangle_run: Path, rectangles: Path) -> Scene:
    detector = boxwright.load(rectangle_run)
    document = json.loads((rectangles / "annotations" / "val.json").read_text())
    paths = [rectangles / "images" / image["file_name"] for image in document["images"]]
    return max((Scene(detector, path) for path in paths[:6]), key=lambda one: one.target.score)


@pytest.mark.parametrize("method", ["rise", "gradient"])
def test_the_score_follows_the_saliency(scene: Scene, method: str) -> None:
    """Without its most salient tenth, the object is detected worse than without a tenth by chance."""
    if method == "rise":
        saliency = rise_saliency(scene.detector, scene.image, scene.target, num_masks=200)
    else:
        saliency = gradient_saliency(scene.detector, scene.image, scene.target)
    assert saliency.shape == scene.image.shape[:2]
    inside = scene.inside()
    assert saliency[inside].mean() > 2 * max(saliency[~inside].mean(), 0)
    held = measure_faithfulness(scene.detector, scene.image, scene.target, saliency, steps=10)
    generator = np.random.default_rng(0)
    chance = [
        measure_faithfulness(
            scene.detector, scene.image, scene.target, blocks(generator, saliency.shape), steps=10
        ).deletion
        for _ in range(5)
    ]
    assert held.deletion[1] < np.mean([one[1] for one in chance]) - 0.05
    assert held.insertion_score > held.deletion_score
    assert held.deletion[0] == pytest.approx(scene.target.score, abs=1e-4)
    assert held.insertion[-1] == pytest.approx(scene.target.score, abs=1e-4)


def blocks(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Patches as large as those of masks, by chance: single pixels would hide nothing."""
    coarse = generator.random((12, 12)).astype(np.float32)
    large = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None, None], size=shape, mode="bilinear")
    return large[0, 0].numpy()


def test_masks_are_seeded(scene: Scene) -> None:
    def compute(seed: int, batch_size: int = 16) -> np.ndarray:
        return rise_saliency(scene.detector, scene.image, scene.target, num_masks=20, seed=seed, batch_size=batch_size)

    np.testing.assert_array_equal(compute(0), compute(0))
    assert np.abs(compute(0) - compute(1)).max() > 1e-3


def test_nothing_hidden_is_the_detection_itself(scene: Scene) -> None:
    image = ExplainedImage(scene.detector, scene.image)
    height, width = image.pixels.shape[-2:]
    visible = image.scores(torch.ones(1, height, width), scene.target)
    hidden = image.scores(torch.zeros(1, height, width), scene.target)
    assert visible.item() == pytest.approx(scene.target.score, abs=1e-4)
    assert hidden.item() < 0.5 * scene.target.score


def test_the_command(scene: Scene, rectangle_run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "page.html"
    arguments = [str(rectangle_run), str(scene.path), "--num-masks", "8", "--out", str(out)]
    assert main(["explain", *arguments]) == 0
    assert "insertion" in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert page.count("<img src=") == 2
    assert "<svg" in page


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--object", "0"], "there is no detection 0"),
        (["--object", "9999"], "there is no detection 9999"),
        (["--num-masks", "1"], "num_masks and cells are at least 2"),
        (["--out", "."], ". is a folder"),
    ],
)
def test_bad_input(
    typed: list[str],
    message: str,
    scene: Scene,
    rectangle_run: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(rectangle_run), str(scene.path), *typed]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
