"""Parsed tables are remembered outside the data set; what is damaged or changed is parsed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data import table_memory
from boxwright.data.annotations import Annotations
from boxwright.data.cache_folder import cache_folder
from boxwright.data.open import open_data
from boxwright.data.readers._coco_file import parse_coco


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table_memory, "SMALLEST_BYTES", 0)
    return tmp_path / "cache"


class Parser:
    """Parses a file, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def __call__(self) -> Annotations:
        self.calls += 1
        return parse_coco(self.path, (self.path.parent,))

    def read(self) -> Annotations:
        return table_memory.remember_table(self.path, (self.path.parent,), self)


@pytest.fixture
def parser(tiny) -> Parser:
    tiny.document["annotations"][0] |= {"segmentation": [[1.5, 2, 3, 4, 5, 6.25]], "area": "12"}
    tiny.document["annotations"][2]["segmentation"] = "sub/mask.png"
    path = tiny.write()
    os.utime(path, (1e9, 1e9))
    return Parser(path)


def ids_of(table: Annotations) -> list[int]:
    assert table.annotation_ids is not None
    return [int(one) for one in table.annotation_ids]


def equal(one: Annotations, two: Annotations) -> bool:
    names = ("image_index", "labels", "bbox_xywh", "area", "crowd")
    arrays = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names)
    rest = [
        [list(t.images), t.categories, ids_of(t), list(t.segmentations), t.findings, t.mask_folders] for t in (one, two)
    ]
    return arrays and rest[0] == rest[1]


def test_the_second_reading_parses_nothing(parser: Parser) -> None:
    first, second = parser.read(), parser.read()
    assert parser.calls == 1
    assert equal(first, second)
    assert second.findings
    second.labels[:] = 5  # reaches no file
    assert equal(first, parser.read())


def test_large_ids_are_kept(tiny) -> None:
    tiny.document["images"][0]["id"] = tiny.document["annotations"][0]["image_id"] = 2**63 + 5
    tiny.document["annotations"][2]["image_id"] = 2**63 + 5
    tiny.document["annotations"][1]["id"] = 2**80
    path = tiny.write()
    os.utime(path, (1e9, 1e9))
    parser = Parser(path)
    assert equal(parser.read(), parser.read())
    assert parser.calls == 1
    assert parser.read().images[0].id == 2**63 + 5


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "another time"])
def test_damage_is_parsed_again(parser: Parser, cache: Path, damage: str) -> None:
    first = parser.read()
    (file,) = (cache / "tables").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-70]
    elif damage == "flipped":
        content[content.index(np.float64(1.5).tobytes()) + 3] ^= 1
    elif damage == "empty":
        content = bytearray()
    elif damage == "text":
        content = bytearray(b"no table" * 99)
    file.write_bytes(content)
    if damage == "another time":
        os.utime(parser.path, (1e9 + 1, 1e9 + 1))
    assert equal(first, parser.read())
    assert parser.calls == 2
    assert equal(first, parser.read())
    assert parser.calls == 2


def test_a_file_that_was_just_written_is_not_remembered(parser: Parser) -> None:
    os.utime(parser.path)
    parser.read()
    parser.read()
    assert parser.calls == 2


def test_a_cache_that_cannot_be_written_is_a_note(parser: Parser, cache: Path) -> None:
    cache.write_text("a file where the folder would be")
    table: Any = parser.read()
    (note,) = table.notes
    assert note.startswith(f"the parsed table cannot be kept in {cache / 'tables'}: ")
    assert len(table.labels) == 3


def test_opening_a_data_set_uses_it(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write()
    os.utime(path, (1e9, 1e9))
    first = open_data(None, annotations=path, images=tiny.root / "images")
    assert len(list((cache_folder() / "tables").iterdir())) == 1
    monkeypatch.setattr("boxwright.data.readers.coco.parse_coco", lambda *_: pytest.fail("parsed again"))
    second = open_data(None, annotations=path, images=tiny.root / "images")
    for a, b in zip(first.records, second.records, strict=True):
        assert (a.image_id, a.path, a.annotation_ids) == (b.image_id, b.path, b.annotation_ids)
        assert a.bbox_xywh.tolist() == b.bbox_xywh.tolist()
        assert a.segmentations == b.segmentations
