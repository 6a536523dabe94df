"""``boxwright next``: a folder of images, those that cannot be read, and lists that are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxwright
from boxwright.cli.main import main
from passing_detector import make_detector

SCORES = {"half.png": 0.5, "most.png": 0.95, "least.png": 0.02}


def save(path: Path, value: float, *, seed: int) -> None:
    """An image of some patches around a value, which is its score."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(-0.02, 0.02, (8, 8)).repeat(8, 0).repeat(8, 1)
    pixels = np.rint((value + patches - patches.mean()) * 255).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels[..., None].repeat(3, 2)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, value) in enumerate(SCORES.items()):
        save(folder / name, value, seed=seed)
    return folder


def test_uncertain_images_come_first_with_their_reason(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.jsonl"
    result = boxwright.next_images(make_detector(), photos, 2, out=out)
    assert (len(result.images), result.num_read, result.num_repeated) == (2, 3, 0)
    assert [one.name for one in result.images] == ["most.png", "half.png"]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(one.path) for one in result.images]
    # Two detections, of scores .5 and .25, of five that would count; in the other image .95 and .475.
    assert rows[1]["class_uncertainty"] == pytest.approx((1 + 0.8113) / 5, abs=0.02)
    assert rows[0]["class_uncertainty"] == pytest.approx((0.2864 + 0.9982) / 5, abs=0.02)
    # The quarter at the left is at the right in the mirror image: of what is there, the whole fits best.
    assert rows[0]["box_uncertainty"] == pytest.approx(0.475 * 0.75 / 1.425, abs=0.01)
    assert rows[1]["box_uncertainty"] == pytest.approx(0.0, abs=1e-6)
    assert rows[0]["reason"].startswith("unlike the others (1.00), classes are unclear (0.2")


def test_copies_and_labeled_images_are_left_out(photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "half.png").resize((96, 96)).save(photos / "half_again.png")
    result = boxwright.next_images(make_detector(), photos, 9)
    assert result.num_repeated == 1
    assert {one.name for one in result.images} >= {"most.png", "least.png"}
    labeled = tmp_path / "labeled"
    boxwright.prelabel(make_detector(), photos / "half.png", labeled, threshold=0.1)
    result = boxwright.next_images(make_detector(), photos, 9, labeled=labeled, out=tmp_path / "next.txt")
    assert {one.name for one in result.images} == {"most.png", "least.png"}
    assert (tmp_path / "next.txt").read_text().splitlines() == [str(one.path) for one in result.images]


def test_damaged_images_are_skipped_and_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxwright.workflows.next_images.load_predictor", lambda *_, **__: make_detector())
    monkeypatch.chdir(tmp_path)
    (photos / "broken.png").write_bytes(b"no image")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    assert main(["next", str(model), str(photos), "-n", "2"]) == 2
    printed = capsys.readouterr()
    assert "next.jsonl: 2 of 3 images" in printed.out
    assert "half.png: " in printed.out
    assert "1 images could not be read" in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--count", "0"], "--count is at least 1, not 0"), (["--labeled", "nowhere"], "nowhere")],
)
def test_wrong_options(
    options: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    assert main(["next", str(model), str(photos), *options]) == 2
    assert message in capsys.readouterr().err


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of 1 images could be read"):
        boxwright.next_images(make_detector(), tmp_path, 3)
