"""Hashes of what data sets hold: the same in every format, another one for any other content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.content_hash import content_sha256
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.structures import Category
from boxwright.workflows.convert_data import convert_data, list_writers
from heard import Heard


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_data_set(folder, train=6, val=2, image_size=64)
    return folder


def with_one(data: DetectionData, change: Callable[[Record], Record]) -> DetectionData:
    """Change the fullest record of a data set."""
    first, *rest = sorted(data.records, key=lambda one: -len(one.labels))
    return replace(data, records=[change(first), *rest])


@pytest.mark.parametrize("name", list_writers())
def test_every_format_of_the_same_data_has_the_same(drawn_set: Path, tmp_path: Path, name: str) -> None:
    converted = convert_data(drawn_set, tmp_path / "out", to=name, observer=Heard())
    assert content_sha256(open_data(converted.folder)) == content_sha256(open_data(drawn_set))
    assert content_sha256(open_data(drawn_set, "val")) != content_sha256(open_data(drawn_set))


def test_order_and_class_numbers_do_not_count(drawn_set: Path) -> None:
    data = open_data(drawn_set)
    whole = content_sha256(data)
    assert content_sha256(replace(data, records=data.records[::-1])) == whole
    assert content_sha256(replace(data, records=tuple(data.records))) == whole
    more = [Category(90, "unused"), *data.categories]
    shifted = [replace(record, labels=record.labels + 1) for record in data.records]
    assert content_sha256(replace(data, records=shifted, categories=tuple(more))) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, path=one.path.with_name("other.png")),
        lambda one: replace(one, height=one.height + 1),
        lambda one: replace(one, bbox_xywh=one.bbox_xywh + np.array([0, 0, 0.5, 0])),
        lambda one: replace(one, crowd=~one.crowd),
        lambda one: replace(one, labels=1 - one.labels.clip(0, 1)),
        lambda one: replace(
            one, labels=one.labels[1:], bbox_xywh=one.bbox_xywh[1:], crowd=one.crowd[1:], area=one.area[1:]
        ),
    ],
    ids=["name", "size", "box", "crowd", "class", "fewer"],
)
def test_any_change_counts(drawn_set: Path, change: Callable[[Record], Record]) -> None:
    data = open_data(drawn_set)
    assert content_sha256(with_one(data, change)) != content_sha256(data)


def test_names_of_classes_count(drawn_set: Path) -> None:
    data = open_data(drawn_set)
    renamed = tuple(replace(category, name=f"{category.name} 2") for category in data.categories)
    assert content_sha256(replace(data, categories=renamed)) != content_sha256(data)


def test_no_images_and_no_objects() -> None:
    one = Record(1, Path("a.png"), 4, 4, *_no_objects(), ())
    nothing = DetectionData(records=(), categories=(), source=Path("x"))
    assert content_sha256(nothing) != content_sha256(replace(nothing, records=(one,)))
    odd = replace(one, path=Path("\udcff\ud800.png"))
    assert len(content_sha256(replace(nothing, records=(odd,)))) == 64


def _no_objects() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty((0, 4)), np.empty(0), np.empty(0, np.bool_)
