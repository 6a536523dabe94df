"""Boxes that are mirrored, turned or for smaller images: found by the pixels, and only where these leave no doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.doctor import misplaced_boxes
from boxwright.data.doctor.box_evidence import ContrastMap, PlacementEvidence
from boxwright.data.doctor.misplaced_boxes import MIRRORED, MISPLACED_BOXES, find_misplaced_boxes
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.units import BOXES_OF_OTHER_SIZE
from boxwright.data.open import list_splits, open_data
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.workflows.check import brief_check, check

SETS = ("bccd", "coco_mini", "deeppcb", "nuclei")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, train=60, val=12, image_size=96, seed=3)
    return folder


@pytest.fixture(scope="module")
def drawn(folder: Path) -> ObjectTable:
    return ObjectTable.of(open_data(folder, "train"))


def placed(objects: ObjectTable, name: str) -> ObjectTable:
    """The same images with boxes placed otherwise; all these placements are their own inverse."""
    sizes = np.tile(objects.image_sizes, 2)
    return replace(objects, xyxy=MIRRORED[name](objects.xyxy / sizes) * sizes)


@pytest.mark.parametrize("name", SETS)
def test_no_false_alarm(real_data: Callable[[str], Path], name: str) -> None:
    root = real_data(name)
    for split in list_splits(root):
        assert find_misplaced_boxes(ObjectTable.of(open_data(root, split, check_images=False)), split) == []


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        ("bccd", "with y counted from below"),
        ("deeppcb", "with x counted from the right"),
        ("nuclei", "with x and y swapped"),
    ],
)
def test_found_in_photographs(real_data: Callable[[str], Path], name: str, placement: str) -> None:
    """coco_mini has 26 images, which prove too little."""
    objects = ObjectTable.of(open_data(real_data(name), "train", check_images=False))
    (finding,) = find_misplaced_boxes(placed(objects, placement), "train")
    assert finding.kind is MISPLACED_BOXES
    assert finding.detail.endswith(placement)


def test_sound_boxes(drawn: ObjectTable) -> None:
    assert find_misplaced_boxes(drawn, "train") == []


@pytest.mark.parametrize("placement", MIRRORED)
def test_found_in_drawn_images(drawn: ObjectTable, placement: str) -> None:
    (finding,) = find_misplaced_boxes(placed(drawn, placement), "train")
    assert (finding.kind, finding.subject) == (MISPLACED_BOXES, "train")
    assert finding.detail.endswith(placement)


@pytest.mark.parametrize("scale", [0.5, 0.7])
def test_boxes_for_smaller_images(drawn: ObjectTable, scale: float) -> None:
    (finding,) = find_misplaced_boxes(replace(drawn, xyxy=scale * drawn.xyxy), "train")
    assert finding.kind is BOXES_OF_OTHER_SIZE
    assert float(finding.detail.rsplit("about ", 1)[1].split()[0]) == pytest.approx(scale, abs=0.05)


def test_objects_that_are_all_at_the_upper_left(drawn: ObjectTable) -> None:
    """As those of a fixed camera may be."""
    keep = (drawn.xyxy[:, 2:] / drawn.image_sizes < 0.6).all(1)
    assert keep.sum() > 20
    fewer = replace(
        drawn,
        xyxy=drawn.xyxy[keep],
        labels=drawn.labels[keep],
        image_index=drawn.image_index[keep],
        area=drawn.area[keep],
        crowd=drawn.crowd[keep],
    )
    assert misplaced_boxes._scale(fewer) is not None
    assert find_misplaced_boxes(fewer, "train") == []


def test_boxes_of_other_images_are_nowhere(drawn: ObjectTable) -> None:
    """Nothing says where they belong."""
    index = (drawn.image_index + 7) % len(drawn.records)
    order = np.argsort(index, kind="stable")
    assert find_misplaced_boxes(replace(drawn, image_index=index[order], xyxy=drawn.xyxy[order]), "train") == []


def test_few_images_prove_nothing(drawn: ObjectTable) -> None:
    few = drawn.image_index < 9
    flipped = placed(drawn, "with y counted from below")
    objects = replace(
        flipped, **{name: getattr(flipped, name)[few] for name in ("xyxy", "labels", "image_index", "area", "crowd")}
    )
    assert find_misplaced_boxes(objects, "train") == []


def test_sound_boxes_need_few_images(drawn: ObjectTable, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    real = misplaced_boxes._rank

    def observed(objects: ObjectTable, image: int, *rest: object) -> None:
        looked_at.append(image)
        real(objects, image, *rest)

    monkeypatch.setattr(misplaced_boxes, "_rank", observed)
    find_misplaced_boxes(drawn, "train")
    assert len(looked_at) == 16
    assert max(looked_at) > 50


def test_check_and_training_say_it(folder: Path) -> None:
    data = open_data(folder, "train")
    records = []
    for one in data.records:
        left, top, width, height = one.bbox_xywh.T
        records.append(replace(one, bbox_xywh=np.stack((left, one.height - top - height, width, height), 1)))
    lines = brief_check({"train": replace(data, records=tuple(records))}, "detection")
    assert any("mirrored or turned" in line and line.startswith("error") for line in lines), lines
    assert "misplaced_boxes" not in {one.finding.kind.name for one in check(folder).findings}


def test_the_contrast_inside_by_hand() -> None:
    """A square of noise in a gray image: its box has more contrast than all beside it, and a gray one as much."""
    pixels = np.full((100, 80, 3), 128, dtype=np.uint8)
    pixels[40:60, 30:50] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    contrast = ContrastMap(pixels)
    sides = np.array([80, 100, 80, 100])
    assert contrast.mean_rank(np.array([[30, 40, 50, 60]]) / sides) == 1
    assert contrast.mean_rank(np.array([[5, 5, 15, 15]]) / sides) == 0.5
    assert np.isnan(contrast.mean_rank(np.array([[30, 40, 34, 60]]) / sides))
    assert np.isnan(contrast.mean_rank(np.array([[0, 0, 75, 90]]) / sides))
    assert PlacementEvidence.of([0.9, float("nan"), 0.9, 0.9, 0.9]) == (4, pytest.approx(0.9), pytest.approx(16.0))
