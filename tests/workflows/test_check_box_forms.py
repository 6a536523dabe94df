"""Boxes in another form than the file's: recognized with those that were dropped, and converted or left as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from box_plants import corners_in_first_images, move_boxes, reach_edges, set_boxes, upsample
from boxwright.data.doctor.box_forms import FileBoxes, recognize_form, stray_boxes
from boxwright.data.open import open_data
from boxwright.workflows.check import check
from image_plants import Plant
from sound_set import HEIGHT, WIDTH, SoundSet

SIDES = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


def yolo(x: float, y: float, w: float, h: float) -> list[float]:
    return [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]


def corner_fractions(x: float, y: float, w: float, h: float) -> list[float]:
    return [x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT]


def scale(factor: float) -> Callable[[float, float, float, float], list[float]]:
    return lambda *box: [factor * value for value in box]


CONVERTED: dict[str, tuple[str, Callable[[float, float, float, float], list[float]]]] = {
    "swapped": ("swapped_axes", lambda x, y, w, h: [y, x, h, w]),
    "centers": ("centers_as_corners", lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
    "yolo": ("fractions_as_pixels", yolo),
    "corner fractions": ("fractions_as_pixels", corner_fractions),
    "fractions": ("fractions_as_pixels", lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]),
}
LEFT: dict[str, tuple[str, Plant]] = {
    "another size": ("boxes_of_other_size", set_boxes(scale(2.5))),
    "many beyond": ("many_beyond_image", move_boxes(8)),
    "some corners": ("stray_form", corners_in_first_images(4)),
}


def kinds_in(folder: Path) -> set[str]:
    return {one.finding.kind.name for one in check(folder).findings}


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("areas", ["right", "of wrong boxes", "none"])
def test_the_copy_has_the_right_boxes_and_areas(tmp_path: Path, name: str, areas: str) -> None:
    kind, change = CONVERTED[name]
    sound = SoundSet(tmp_path / "set")
    reach_edges(sound)
    expected = {one["id"]: list(one["bbox"]) for one in sound.annotations()}
    for one in sound.annotations():
        one["bbox"] = change(*one["bbox"])
        if areas != "right":
            one["area"] = one["bbox"][2] * one["bbox"][3]
        if areas == "none":
            del one["area"]
    report = check(sound.write(), fix=tmp_path / "copy")
    assert [one.finding.subject for one in report.findings if one.finding.kind.name == kind] == ["train"]
    assert report.has_errors
    records = open_data(tmp_path / "copy", "train").records
    assert sorted(number for record in records for number in record.annotation_ids) == sorted(expected)
    for record in records:
        for number, box, area in zip(record.annotation_ids, record.bbox_xywh.tolist(), record.area, strict=True):
            assert box == pytest.approx(expected[number])
            assert area == pytest.approx(box[2] * box[3])
    assert kinds_in(tmp_path / "copy") == set()


@pytest.mark.parametrize("factor", [4, 100])
def test_percentages_and_stated_sizes_are_converted(tmp_path: Path, factor: int) -> None:
    sound = SoundSet(tmp_path / "set")
    reach_edges(sound)
    expected = {one["id"]: 4 * np.array(one["bbox"]) for one in sound.annotations()}
    percentages = lambda *box: [100 * value / side for value, side in zip(box, SIDES.tolist(), strict=True)]  # noqa: E731
    upsample(percentages if factor == 100 else lambda *box: list(box))(sound)
    if factor == 4:
        for image in sound.images():
            image.update(width=WIDTH, height=HEIGHT)
    check(sound.write(), fix=tmp_path / "copy")
    for record in open_data(tmp_path / "copy", "train").records:
        for number, box in zip(record.annotation_ids, record.bbox_xywh, strict=True):
            assert box == pytest.approx(expected[number])
    assert kinds_in(tmp_path / "copy") == set()


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_mended_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    kind, plant = LEFT[name]
    sound = SoundSet(tmp_path / "set")
    plant(sound)
    report = check(sound.write(), fix=tmp_path / "copy")
    assert kind in kinds_in(tmp_path / "set")
    assert kind in kinds_in(tmp_path / "copy")
    assert {one.finding.kind.name for one in report.fixes} <= {"boxes_left", "strays_left"}
    assert len(report.fixes) == 1
    copy = json.loads((tmp_path / "copy" / "annotations" / "train.json").read_text())
    assert {one["id"]: one["bbox"] for one in copy["annotations"]} == {
        one["id"]: pytest.approx(one["bbox"]) for one in sound.annotations()
    }


def test_fractions_that_may_be_centers_are_left(tmp_path: Path) -> None:
    """No box is near the right or lower edge, where the two forms differ."""
    sound = SoundSet(tmp_path / "set")
    set_boxes(yolo)(sound)
    report = check(sound.write(), fix=tmp_path / "copy")
    (finding,) = [one.finding for one in report.findings]
    assert finding.kind.name == "fractions_as_pixels"
    assert "not clear" in finding.detail
    assert [one.finding.kind.name for one in report.fixes] == ["boxes_left"]


def test_half_of_the_boxes_as_corners_is_an_error_with_the_reason(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    for one in sound.annotations():
        x, y, w, h = one["bbox"]
        if one["category_id"] == 3:
            one["bbox"] = [x, y, x + w, y + h]
            del one["area"]
    details = {one.finding.kind.name: one.finding.detail for one in check(sound.write()).findings}
    assert details["many_beyond_image"].startswith("12 of 36 boxes have no area inside their image or end beyond it")
    assert details["stray_form"].startswith("12 of 36 make sense only as corners: 001.png (annotation 12 (moon)), ")


def test_random_sound_boxes_have_no_other_form() -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        count = int(random.integers(3, 300))
        sizes = random.integers(30, 900, (count, 2)).astype(float) if seed % 2 else np.full((count, 2), (640.0, 480.0))
        corners = np.sort(random.uniform(0, 1, (count, 2, 2)) ** random.uniform(0.5, 2), axis=1) * sizes[:, None]
        boxes = np.concatenate((corners[:, 0], corners[:, 1] - corners[:, 0]), axis=1)
        boxes[random.uniform(size=count) < 0.02, 0] += 20  # few reach beyond their image
        file_boxes = FileBoxes(boxes, sizes, sizes)
        assert recognize_form(file_boxes) is None, seed
        assert not stray_boxes(file_boxes), seed
