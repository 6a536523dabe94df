"""Cutting objects out: where the squares lie, what they show, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boxwright.data.object_crops import crop_objects, square_around
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def box(*corners: float) -> np.ndarray:
    return np.array(corners, dtype=np.float32)


@pytest.mark.parametrize(
    ("corners", "margin", "expected"),
    [
        ((40, 40, 60, 50), 0.0, (40, 35, 60, 55)),
        ((40, 40, 60, 50), 0.1, (38, 33, 62, 57)),
        ((0, 0, 20, 10), 0.1, (0, 0, 24, 24)),
        ((90, 70, 100, 80), 0.0, (90, 70, 100, 80)),
        ((0, 30, 100, 40), 0.1, (0, 0, 100, 80)),
    ],
)
def test_the_square_is_moved_into_the_image(
    corners: tuple[float, ...], margin: float, expected: tuple[int, ...]
) -> None:
    assert square_around(box(*corners), 80, 100, margin) == expected


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(*[st.floats(0, 1, width=32)] * 4),
    st.floats(0, 2),
)
def test_squares_show_the_object(height: int, width: int, at: tuple[float, ...], margin: float) -> None:
    (x1, x2), (y1, y2) = sorted((at[0] * width, at[2] * width)), sorted((at[1] * height, at[3] * height))
    left, top, right, bottom = square_around(box(x1, y1, x2, y2), height, width, margin)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == bottom - top or right - left == width or bottom - top == height
    # But for rounding, and for squares smaller than a pixel.
    assert left - 1 <= x1
    assert x2 <= right + 1
    assert top - 1 <= y1
    assert y2 <= bottom + 1


@pytest.fixture
def one_image(tmp_path: Path) -> DetectionData:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    record = Record(
        image_id=1,
        path=tmp_path / "a.png",
        height=80,
        width=100,
        labels=np.array([0, 1, 0, 0]),
        bbox_xywh=np.array([[40.0, 40, 20, 10], [0, 0, 30, 30], [5, 5, 3, 20], [0, 0, 50, 50]]),
        area=np.ones(4),
        crowd=np.array([False, False, False, True]),
        annotation_ids=(11, 12, 13, 14),
    )
    return DetectionData((record,), (Category(3, "a/b"), Category(5, "c")), tmp_path / "a.json")


def test_pixels_and_names(one_image: DetectionData, tmp_path: Path) -> None:
    cut = crop_objects(one_image, tmp_path / "out", margin=0.1, min_size=8)
    assert cut.counts == {"a_b": 1, "c": 1}
    assert cut.too_small == 1
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert files == ["a_b/a_11.png", "c/a_12.png"]
    whole = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a_b" / "a_11.png")), whole[33:57, 38:62])


@pytest.mark.parametrize(
    ("image", "crop"), [(".a.png", "a_11.png"), ("..b c..png", "b c_11.png"), (".png", "png_11.png")]
)
def test_crops_of_hidden_images_are_seen(one_image: DetectionData, tmp_path: Path, image: str, crop: str) -> None:
    (record,) = one_image.records
    hidden = dataclasses.replace(record, path=record.path.rename(tmp_path / image))
    cut = crop_objects(dataclasses.replace(one_image, records=(hidden,)), tmp_path / "out" / "train")
    read = open_data(tmp_path / "out", task="classification")
    assert len(read.records) == sum(cut.counts.values()) == 2
    assert read.records[0].path.name == crop


def test_classes_that_would_share_a_folder(one_image: DetectionData, tmp_path: Path) -> None:
    for first, second, message in [
        ("x/y", "X:Y", r"a\.json: classes 'X:Y' and 'x/y'"),
        ("a", "..", r"classes '\.\.' have"),
        ("\u00e9", "e\u0301", "classes .* and .* have no folder name of their own"),
    ]:
        data = DetectionData(one_image.records, (Category(1, first), Category(2, second)), one_image.source)
        with pytest.raises(ValueError, match=message):
            crop_objects(data, tmp_path / "out")


@pytest.mark.parametrize("options", [{"margin": -0.1}, {"margin": float("nan")}, {"min_size": 0}])
def test_numbers_out_of_range(one_image: DetectionData, tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="margin is from 0 to 10 and min_size at least 1 pixel"):
        crop_objects(one_image, tmp_path / "out", **options)  # type: ignore[arg-type]


def test_crops_of_a_drawn_set_are_a_data_set_for_classification(drawn: Path, tmp_path: Path) -> None:
    data = open_data(drawn, "train")
    cut = crop_objects(data, tmp_path / "train", min_size=1)
    read = open_data(tmp_path, task="classification")
    assert len(read.records) == sum(cut.counts.values()) == sum(len(record.labels) for record in data.records)
    assert {category.name for category in read.categories} == {category.name for category in data.categories}
