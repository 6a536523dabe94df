"""``boxwright.predict``: detections, drawings and JSON of any images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import boxwright
from boxwright.cli.main import main
from live_threads import list_threads


@pytest.fixture
def photos(drawn: Path) -> list[Path]:
    return sorted((drawn / "images").glob("val_*.jpg"))


def test_the_detections_of_the_command(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    paths = [str(path) for path in photos]
    command = ["predict", str(trained), *paths, "--out", str(tmp_path / "a"), "--json", str(tmp_path / "a.json")]
    assert main([*command, "--threshold", "0.1"]) == 0
    result = boxwright.predict(trained, photos, threshold=0.1, out=tmp_path / "b", json=tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == (tmp_path / "a.json").read_text()
    assert result.rows() == json.loads((tmp_path / "b.json").read_text())
    assert list(result.detections) == [path.name for path in photos]
    for path in photos:
        assert (tmp_path / "b" / path.name).read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_nothing_is_written_unasked(
    trained: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = boxwright.predict(trained, photos[0], threshold=0.0)
    assert len(result.detections[photos[0].name]) == result.num_detections == 120
    assert list(tmp_path.iterdir()) == []


def test_images_in_memory(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    images = [photos[0].read_bytes(), Image.open(photos[1]), photos[2]]
    result = boxwright.predict(trained, images, threshold=0.0, out=tmp_path / "drawn")
    expected = boxwright.predict(trained, photos[:3], threshold=0.0)
    assert list(result.detections) == ["image_0.png", "image_1.png", photos[2].name]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == sorted(result.detections)
    for ours, theirs in zip(result.detections.values(), expected.detections.values(), strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.scores, theirs.scores)


def test_files_of_one_name_are_told_apart_by_their_folders(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(photos[0].read_bytes())
    paths = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg", photos[0]]
    names = [str(paths[0]), str(paths[1]), photos[0].name]
    assert list(boxwright.predict(trained, paths).detections) == names
    with pytest.raises(ValueError, match="would both be drawn to"):
        boxwright.predict(trained, paths, out=tmp_path / "drawn")


def test_the_best_score_below_the_threshold(trained: Path, photos: list[Path]) -> None:
    everything = boxwright.predict(trained, photos, threshold=0.0)
    nothing = boxwright.predict(trained, photos, threshold=1.0)
    assert nothing.num_detections == 0
    assert len(nothing.detections) == len(photos)
    best = max(one.scores.max().item() for one in everything.detections.values())
    assert nothing.best_score == everything.best_score == best


def test_unreadable_images(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    images = [photos[0], tmp_path / "text.png", b"no image"]
    result = boxwright.predict(trained, images, on_error="skip")
    assert list(result.detections) == [photos[0].name]
    assert [(one.index, one.path) for one in result.skipped] == [(1, tmp_path / "text.png"), (2, None)]
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image"):
        boxwright.predict(trained, images)


def test_a_detector_stays_as_it_was(trained: Path, photos: list[Path]) -> None:
    detector = boxwright.load(trained).train()
    expected = boxwright.predict(trained, photos[0], threshold=0.0)
    (detections,) = boxwright.predict(detector, photos[0], threshold=0.0).detections.values()
    assert torch.equal(detections.scores, next(iter(expected.detections.values())).scores)
    assert all(module.training for module in detector.modules())
    assert any(parameter.requires_grad for parameter in detector.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 2.0}, r"threshold is between 0 and 1, or tuned, not 2\.0"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"json": "."}, "is a folder; give the name of a file"),
    ],
)
def test_mistakes(trained: Path, photos: list[Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.predict(trained, photos, **options)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: no such image or folder"):
        boxwright.predict(trained, "nowhere.jpg")


def test_precisions_are_near_and_boxes_stay_float32(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    single, half = (
        boxwright.predict(trained, photos, threshold=0.0, device=boxwright.ComputeOptions("cpu", precision))
        for precision in ("float32", "bfloat16")
    )
    command = ["predict", str(trained), *map(str, photos), "--out", str(tmp_path / "a"), "--threshold", "0"]
    assert main([*command, "--json", str(tmp_path / "a.json"), "--precision", "bfloat16"]) == 0
    assert half.rows() == json.loads((tmp_path / "a.json").read_text())
    assert single.best_score != half.best_score
    assert single.best_score == pytest.approx(half.best_score, abs=0.02)
    for one, other in zip(single.detections.values(), half.detections.values(), strict=True):
        assert one.boxes.dtype == other.boxes.dtype == other.scores.dtype == torch.float32


def test_what_is_drawn_before_an_image_that_cannot_be_read(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    images = [photos[0], photos[1], tmp_path / "nowhere.png", photos[2]]
    (tmp_path / "nowhere.png").write_text("no image")
    with pytest.raises(ValueError, match=r"nowhere\.png cannot be read"):
        boxwright.predict(trained, images, out=tmp_path / "drawn")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [one.name for one in photos[:2]]


def test_a_drawing_that_cannot_be_written(trained: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "drawn" / photos[1].name).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"{photos[1].name} cannot be written: it is a folder"):
        boxwright.predict(trained, photos, out=tmp_path / "drawn", json=tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()
    assert not [*list_threads("drawing"), *list_threads("read-ahead")]


@pytest.mark.parametrize(("resize", "sizes"), [("square", [4, 2]), ("shortest_side", [1] * 6)])
def test_images_of_one_input_size_go_through_the_network_together(
    trained: Path, photos: list[Path], resize: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict_batch = boxwright.Detector.predict_batch

    def observed(self: boxwright.Detector, pixels: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        seen.append(len(pixels))
        return predict_batch(self, pixels, *arguments, **options)

    monkeypatch.setattr(boxwright.Detector, "predict_batch", observed)
    boxwright.predict(trained, photos, overrides={"input.resize": resize})
    assert seen == sizes


def test_how_far_sides_may_be_off(photos: list[Path], tmp_path: Path) -> None:
    """A fresh detector has even distributions: all sides may be off by the same part of the box."""
    detector = boxwright.build("dfine_n", num_classes=3, overrides={"image_size": 64, "head.num_queries": 5})
    plain = boxwright.predict(detector, photos[:1], threshold=0.0, out=tmp_path / "plain")
    compute = boxwright.ComputeOptions("cpu", "float32", sides_std=True)
    told = boxwright.predict(detector, photos[:1], threshold=0.0, out=tmp_path / "told", device=compute)
    assert all("sides_std" not in row for row in plain.rows())
    detector.tell_sides_std()
    assert boxwright.predict(detector, photos[:1], threshold=0.0, device="cpu").rows()[0]["sides_std"]
    detector.tell_sides_std(False)
    steps = torch.expm1(torch.arange(-15, 16).abs() * torch.tensor(3.0).log() / 15)
    part = ((steps**2).sum() + 2 * 4**2).div(33).sqrt().item() / 4
    for row in told.rows():
        left, top, right, bottom = row["sides_std"]
        assert (left, top) == pytest.approx((right, bottom))
    width, height = Image.open(photos[0]).size
    boxes = [(row, *row["bbox"]) for row in told.rows()]
    inside = [row for row, x, y, w, h in boxes if min(x, y) > 0 and x + w < width and y + h < height]
    assert inside
    for row in inside:
        assert row["sides_std"][0] == pytest.approx(part * row["bbox"][2], rel=1e-4)
    name = photos[0].name
    assert (tmp_path / "plain" / name).read_bytes() != (tmp_path / "told" / name).read_bytes()
