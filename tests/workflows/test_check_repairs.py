"""Repairs of single faults: images listed twice, masks beyond their image, negative sizes, folders of classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data.doctor.polygon_clips import clip_segmentation, outline_area
from boxwright.data.joined_objects import restore_objects
from boxwright.data.open import open_data
from boxwright.workflows.check import brief_check, check
from sound_set import HEIGHT, WIDTH, SoundSet


def divide_first_image(sound: SoundSet, name: str = "001.png") -> None:
    """List the first image again, with one of its objects, and another one that is in both."""
    sound.images().append(dict(sound.images()[0], id=7000, file_name=name))
    first, second, *_ = sound.annotations()
    first["image_id"] = 7000
    sound.annotations().append(dict(second, id=8000, image_id=7000))


def changes_in(folder: Path) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = json.loads((folder / "fixes.json").read_text())["changes"]
    return changes


@pytest.mark.parametrize("name", ["001.png", "copy.png"])
def test_objects_that_are_divided_between_two_entries_are_merged(tmp_path: Path, name: str) -> None:
    sound = SoundSet(tmp_path / "set", masks=True)
    before = {one["id"]: one["bbox"] for one in sound.annotations()}
    sound.pixels["copy.png"] = sound.pixels["001.png"]
    divide_first_image(sound, name)
    kind = "file_listed_twice" if name == "001.png" else "same_bytes"
    sound.after += [lambda images: (images / "copy.png").unlink()] if name == "001.png" else []
    report = check(sound.write(), fix=tmp_path / "copy")
    assert [one.finding.kind.name for one in report.findings] == [kind]  # named once
    data = open_data(tmp_path / "copy", "train")
    assert len(data.records) == 12
    after = {
        number: box
        for record in data.records
        for number, box in zip(record.annotation_ids, record.bbox_xywh.tolist(), strict=True)
    }
    assert after == before
    assert [one["kind"] for one in changes_in(tmp_path / "copy")] == ["repeated_image_merged", "duplicate_dropped"]
    assert check(tmp_path / "copy").findings == ()


def test_masks_are_clipped_with_their_boxes(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set", masks=True)
    first = sound.annotations()[0]
    first["bbox"] = [-40, 5, 50, 30]
    first["segmentation"] = [[-40, 5, 10, 5, 10, 35, -40, 35]]
    first["area"] = 1500
    check(sound.write(), fix=tmp_path / "copy")
    record = open_data(tmp_path / "copy", "train").records[0]
    assert record.bbox_xywh[0].tolist() == [0, 5, 10, 30]
    assert outline_area(record.segmentations[0]) == record.area[0] == 300
    assert check(tmp_path / "copy").findings == ()
    changes = {one["kind"]: one["detail"] for one in changes_in(tmp_path / "copy")}
    assert changes["mask_clipped"] == "annotation 10 (cell): 1500 square pixels, now 300"
    assert changes["box_clipped"].endswith("was left -40, top 5, 50 x 30 pixels, area 300")


def test_outlines_are_clipped_as_pixels_are() -> None:
    inside = [[1, 1, 9, 1, 9, 9]]
    assert clip_segmentation(inside, 10, 10) is inside
    assert clip_segmentation({"counts": "", "size": [1, 1]}, 10, 10) == {"counts": "", "size": [1, 1]}
    assert clip_segmentation([[20, 20, 30, 20, 30, 30]], 10, 10) is None
    assert clip_segmentation([["a", 2, 3]], 10, 10) == [["a", 2, 3]]
    random = np.random.default_rng(0)
    for _ in range(50):
        angles = np.sort(random.uniform(0, 2 * np.pi, 8))
        star = random.uniform(-5, 15, 2) + random.uniform(2, 9, (8, 1)) * np.stack((np.cos(angles), np.sin(angles)), 1)
        clipped = clip_segmentation([star.ravel().tolist()], 10, 10)
        grid = (np.mgrid[:200, :200].reshape(2, -1).T + 0.5) / 20
        expected = _contains(star, grid).mean() * 100
        assert (outline_area(clipped) or 0) == pytest.approx(expected, abs=0.6)


def _contains(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mark points inside, by the crossings of a ray; the star around its own center has angles below half a turn."""
    x, y = points.T
    inside = np.zeros(len(points), dtype=bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        crosses = (y1 > y) != (y2 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def test_negative_sizes_are_counted_from_the_other_corner(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    first, second, *_ = sound.annotations()
    expected = [list(one["bbox"]) for one in (first, second)]
    for one in (first, second):
        x, y, w, h = one["bbox"]
        one["bbox"] = [x + w, y + h, -w, -h] if one is first else [x + w, y, -w, h]
    second["area"] = -second["area"]
    report = check(sound.write(), fix=tmp_path / "copy")
    assert {one.finding.kind.name for one in report.findings} == {"empty_box"}
    record = open_data(tmp_path / "copy", "train").records[0]
    boxes = dict(zip(record.annotation_ids, record.bbox_xywh.tolist(), strict=True))
    assert [boxes[10], boxes[11]] == expected
    assert [one["kind"] for one in changes_in(tmp_path / "copy")] == ["negative_size_mended"] * 2
    assert check(tmp_path / "copy").findings == ()


def test_findings_of_dropped_boxes_tell_how_to_restore_them(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    sound.annotations()[1].update(bbox=[200.5, 5, 0, 14], area=9, iscrowd=1)
    report = check(sound.write(), fix=tmp_path / "copy", html=tmp_path / "page.html")
    values = "left 200.5, top 5, 0 x 14 pixels, area 9, crowd"
    (finding,) = [one.finding for one in report.findings]
    assert str(finding) == f"001.png (annotation 11 (screw): {values}, image {WIDTH} x {HEIGHT})"
    (change,) = changes_in(tmp_path / "copy")
    assert (change["kind"], change["detail"]) == ("box_dropped", f"annotation 11 (screw): was {values}")
    data = open_data(tmp_path / "set", "train")
    restored = restore_objects(data.records[0], data)
    assert restored.annotation_ids == (10, 12, 11)
    assert restored.bbox_xywh[2].tolist() == [200.5, 5, 0, 14]
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 1


def test_a_split_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    sound.documents["val"].pop("images")
    report = check(sound.write(), fix=tmp_path / "copy")
    assert [(one.split, one.finding.kind.name) for one in report.fixes] == [("val", "split_left_out")]
    assert "splits are not in the copy" not in report.verdict()
    assert any("splits are not in the copy" in line for line in report.lines())


def test_training_hears_that_val_is_train(tmp_path: Path) -> None:
    folder = SoundSet(tmp_path / "set").write()
    train = open_data(folder, "train")
    (line, _) = brief_check({"train": train, "val": train}, "detection")
    assert line.startswith("warning: 1 splits have the very images of train: val (as train)")


def class_set(folder: Path) -> Path:
    sound = SoundSet(folder / "images_of_classes")
    for number, (name, image) in enumerate(sound.pixels.items()):
        split = "train" if number < 12 else "val"
        target = folder / "set" / split / ("cat", "dog")[number % 2]
        (target / "deeper").mkdir(parents=True, exist_ok=True)
        image.save(target / "deeper" / name)
    (folder / "set" / "train" / "none").mkdir()
    return folder / "set"


def test_folders_of_classes_stay_such(tmp_path: Path) -> None:
    folder = class_set(tmp_path)
    first, second = (folder / "train" / name / "deeper" for name in ("cat", "dog"))
    shutil.copy(first / "001.png", first / "same.png")
    shutil.copy(first / "003.png", second / "conflict.png")
    (first / "005.png").write_bytes(b"no image")
    report = check(folder, fix=tmp_path / "copy")
    kinds = {one.finding.kind.name: one.finding.subject for one in report.findings}
    assert kinds["same_bytes_other_class"] == "dog/deeper/conflict.png"
    assert kinds["same_bytes"] == "cat/deeper/same.png"
    copied = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*.png")}
    expected = {path.relative_to(folder) for path in folder.rglob("*.png")}
    assert expected - copied == {Path("train/cat/deeper/same.png"), Path("train/cat/deeper/005.png")}
    assert copied < expected
    assert (tmp_path / "copy" / "train" / "none").is_dir()
    assert {one["kind"] for one in changes_in(tmp_path / "copy")} == {"image_unreadable", "repeated_image_merged"}
    again = open_data(tmp_path / "copy", "train", task="classification")
    assert [category.name for category in again.categories] == ["cat", "dog", "none"]
