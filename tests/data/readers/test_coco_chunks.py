"""Chunks of regular entries give what entries give one by one, and doubled keys are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from boxwright.data.annotations import Annotations
from boxwright.data.readers import _coco_chunks, _coco_file

IDS = st.one_of(st.integers(-9, 99), st.sampled_from([2**53 + 1, 2**63 - 1, 2**63 + 5, -(2**63) - 1, 2**70]))
NUMBERS = st.one_of(st.integers(0, 60), st.floats(0, 60), st.sampled_from([2**53 + 1, 1e300, 10**25, 0.1]))
STRANGE = st.sampled_from(
    [
        None,
        True,
        False,
        "",
        "7",
        "x.png",
        "../x",
        64.0,
        2.5,
        1e400,
        float("nan"),
        [],
        {},
        [1, 2],
        10**400,
        [[]],
        [[1, "a"]],
    ]
)
SHAPES = st.one_of(
    st.none(),
    st.just([]),
    st.lists(st.lists(NUMBERS, min_size=6, max_size=8), min_size=1, max_size=2),
    st.just({"counts": [0, 4, 96], "size": [10, 10]}),
    st.just({"counts": 'a\\"\\u00e9"', "size": [10, 10]}),
    st.just("mask.png"),
)
KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "ignore", "width", "file_name")


@st.composite
def documents(draw: Callable[..., Any]) -> dict[str, Any]:
    """Draw COCO documents, most of them valid, with up to two strange values."""
    ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    images: list[dict[str, Any]] = [
        {"id": one, "file_name": draw(st.sampled_from(["a.png", "ä/b.png", "\ud83d\ude00.png", "c\ud800.png"]))}
        | draw(st.sampled_from([{}, {"width": 40, "height": 30}, {"width": None, "height": None}]))
        for one in ids
    ]
    annotations = []
    for number in range(draw(st.integers(0, 6))):
        entry = {
            "id": number + draw(st.sampled_from([0, 0, 0, 2**64])),
            "image_id": draw(st.sampled_from(ids)),
            "category_id": draw(st.sampled_from([7, 90])),
            "bbox": draw(st.lists(NUMBERS, min_size=4, max_size=4)),
        }
        optional = {"area": NUMBERS, "iscrowd": st.integers(0, 1), "segmentation": SHAPES, "note": st.just("},{")}
        entry |= {key: draw(values) for key, values in optional.items() if draw(st.booleans())}
        annotations.append(entry)
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}],
    }
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        entry = draw(st.sampled_from([*images, *annotations]))
        entry[draw(st.sampled_from(KEYS))] = draw(STRANGE)
    return document


FINE_POLYGON = {
    "images": [{"id": 0, "file_name": "a.png"}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 7, "bbox": [0] * 4, "segmentation": [[0, 0, 0, 0, 0, 2**53 + 1]]}
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}],
}
"""A whole number that no float is equal to."""


def outcome(path: Path) -> Any:
    """Return the table in a form that can be compared, or the message."""
    try:
        table = _coco_file.parse_coco(path, (path.parent,))
    except ValueError as error:
        return str(error)
    return described(table)


def described(table: Annotations) -> Any:
    ids: Any = table.annotation_ids
    assert table.bbox_xywh is not None
    assert table.area is not None
    assert table.crowd is not None
    return repr(
        [
            list(table.images),
            table.categories,
            table.image_index.tolist(),
            table.labels.tolist(),
            table.bbox_xywh.tolist(),
            table.area.tolist(),
            table.crowd.tolist(),
            ids.tolist() if isinstance(ids, np.ndarray) else list(ids),
            [floats(one) for one in table.segmentations],
            table.findings,
        ]
    )


def floats(segmentation: Any) -> Any:
    """Whole numbers as floats, which packed polygons hold; those that are none stay, and are refused elsewhere."""
    if isinstance(segmentation, list):
        return [floats(one) for one in segmentation]
    return float(segmentation) if type(segmentation) is int and abs(segmentation) < 2**1023 else segmentation


def one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def refuse(*_: Any) -> Any:
        raise _coco_chunks.IrregularError("for this test")

    with monkeypatch.context() as patched:
        patched.setattr(_coco_file, "split_document", refuse)
        return outcome(path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@example(document=FINE_POLYGON, chunk=1, indent=None)
@given(document=documents(), chunk=st.sampled_from([1, 150, 2**22]), indent=st.sampled_from([None, 1]))
def test_chunks_give_what_single_entries_give(
    document: dict[str, Any], chunk: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document, indent=indent))
    monkeypatch.setattr(_coco_chunks, "CHUNK_BYTES", chunk)
    result = outcome(path)
    assert result == one_by_one(path, monkeypatch)
    assert "\n" not in result


def test_regular_files_are_read_in_chunks(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write()

    def refuse(*_: Any) -> Any:
        raise AssertionError("an entry was read by itself")

    monkeypatch.setattr(_coco_file.EntryReader, "read_annotations", refuse)
    monkeypatch.setattr(_coco_file.EntryReader, "read_images", refuse)
    assert len(_coco_file.parse_coco(path, (path.parent,)).labels) == 3


DOUBLED = {
    "images": ('{"images": [', '{"images": [], "images": [', "'images' stands 2 times"),
    "annotations at the end": ("]}", '], "annotations": []}', "'annotations' stands 2 times"),
    "image_id": ('"image_id": 11', '"image_id": 5, "image_id": 11', "'image_id' stands 2 times"),
    "escaped": ('"image_id": 11', '"image_id": 5, "image\\u005fid": 11', "'image_id' stands 2 times"),
    "bbox": ('"bbox": [1', '"bbox": [0, 0, 1, 1], "bbox": [1', "'bbox' stands 2 times"),
    "optional in one, missing in another": ('"area": 600', '"area": 6, "area": 600', "'area' stands 2 times"),
    "run lengths": ('"size": [50, 20]', '"size": [50, 20], "size": [5, 2]', "'size' stands 2 times"),
    "file name": ('"file_name": "a.png"', '"file_name": "c.png", "file_name": "a.png"', "'file_name' stands 2 times"),
    "category": ('"name": "dog"', '"name": "dog", "name": "hound"', "'name' stands 2 times"),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_a_doubled_key_is_named(tiny, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, message = DOUBLED[name]
    path = tiny.write()
    text = path.read_text()
    assert before in text
    path.write_text(after.join(text.rsplit(before, 1)))
    for result in (outcome(path), one_by_one(path, monkeypatch)):
        assert result.startswith(f"{path}: the key {message} in one object"), result


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"images": [',
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf",
        b'{"images": ' + b"[" * 3000,
        b'{"images": [], "annotations": [], "categories": [], "info": ' + b"9" * 5000 + b"}",
        b'{"images": [{"id": 1, "file_name": "\xff"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
    ],
)
def test_damage_is_one_line(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    message = outcome(path)
    assert message.startswith(f"{path} is not valid JSON: ")
    assert message == one_by_one(path, monkeypatch)


def test_keys_of_other_objects_may_stand_twice(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    document = deepcopy(tiny.document)
    document["annotations"][0]["attributes"] = [{"id": 1}, {"id": 2}]
    path = tiny.write()
    path.write_text(json.dumps(document).replace('{"id": 2}', '{"id": 2, "x": 1, "x": 2}'))
    monkeypatch.setattr(_coco_chunks, "CHUNK_BYTES", 1)
    assert outcome(path) == one_by_one(path, monkeypatch)
    assert not outcome(path).startswith(str(path))


@pytest.mark.parametrize("text", ["x", "}, {", '\\"}, {', "]["])
def test_the_end_of_a_chunk_in_a_long_list_is_found_in_a_few_tries(
    tiny, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.document["annotations"][0]["attributes"] = [{"a": number, "b": text} for number in range(2000)]
    path = tiny.write()
    tries = []

    def count(entries: bytes) -> bool:
        tries.append(entries)
        return is_json(entries)

    is_json = _coco_chunks._is_json
    monkeypatch.setattr(_coco_chunks, "_is_json", count)
    monkeypatch.setattr(_coco_chunks, "CHUNK_BYTES", 1)
    assert outcome(path) == one_by_one(path, monkeypatch)
    assert len(tries) < 60
