"""Repaired copies: the faults are gone, each change is in the log, and the source is as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from boxwright.data.open import open_data
from boxwright.workflows.check import check
from sound_set import HEIGHT, WIDTH, SoundSet

FIXED = {
    "box_beyond_image": "box_clipped",
    "duplicate_box": "duplicate_dropped",
    "empty_box": "box_dropped",
    "image_missing": "image_missing",
    "image_unreadable": "image_unreadable",
    "same_bytes": "repeated_image_merged",
    "area_beyond_box": "area_corrected",
    "area_by_size": "area_corrected",
}
"""Kinds of findings, and the kinds of changes that mend them."""


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plant_all(sound: SoundSet) -> None:
    first, second, third, fourth, *others = sound.annotations()
    first.update(bbox=[85, 5, 20, 20], area=400)
    second["area"] = -second["area"]
    third["area"] = 9000
    sound.annotations().append(dict(fourth, id=9000))
    others[-1].update(bbox=[200, 5, 20, 20])
    names = [one["file_name"] for one in sound.images()]
    sound.pixels[names[5]] = sound.pixels[names[4]]
    sound.after.append(lambda folder: (folder / names[6]).unlink())
    sound.after.append(lambda folder: (folder / names[7]).write_bytes((folder / names[7]).read_bytes()[:200]))


def test_a_repaired_copy_has_none_of_the_faults(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    plant_all(sound)
    before = digests(sound.write())
    report = check(tmp_path / "set", fix=tmp_path / "copy")
    kinds = {one.finding.kind.name for one in report.findings}
    assert FIXED.keys() <= kinds
    again = check(tmp_path / "copy")
    assert not {one.finding.kind.name for one in again.findings} & FIXED.keys()
    assert digests(tmp_path / "set") == before
    changes = json.loads((tmp_path / "copy" / "fixes.json").read_text())["changes"]
    assert {one["kind"] for one in changes} == set(FIXED.values())
    assert len(changes) == len(report.fixes) == 8


def test_nothing_is_lost_in_silence(tmp_path: Path) -> None:
    """36 objects of train: two clipped or corrected stay, what is dropped is in the log.

    Those of an image that is there twice are in the first; two images cannot be read.
    """
    sound = SoundSet(tmp_path / "set")
    plant_all(sound)
    sound.write()
    check(tmp_path / "set", fix=tmp_path / "copy")
    data = open_data(tmp_path / "copy", "train")
    assert len(data.records) == 12 - 3
    assert sum(len(record.labels) for record in data.records) == 37 - 1 - 1 - 6
    clipped = next(record for record in data.records if record.path.name == "001.png")
    assert clipped.bbox_xywh[0].tolist() == [85, 5, 11, 20]
    assert clipped.area[0] == 220


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("corners_as_sizes", lambda x, y, w, h: [x, y, x + w, y + h]),
        ("fractions_as_pixels", lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]),
    ],
)
def test_boxes_in_another_form_are_converted(tmp_path: Path, kind: str, change: object) -> None:
    assert callable(change)
    sound = SoundSet(tmp_path / "set")
    expected = {one["id"]: one["bbox"] for one in sound.annotations()}
    for one in sound.annotations():
        one["bbox"] = change(*one["bbox"])
        del one["area"]
    report = check(sound.write(), fix=tmp_path / "copy")
    assert [one.finding.kind.name for one in report.findings] == [kind]
    for record in open_data(tmp_path / "copy", "train").records:
        for number, box, area in zip(record.annotation_ids, record.bbox_xywh.tolist(), record.area, strict=True):
            assert box == pytest.approx(expected[number])
            assert area == pytest.approx(box[2] * box[3])
    assert not check(tmp_path / "copy").findings


def test_a_sound_set_is_copied_as_it_is(tmp_path: Path) -> None:
    report = check(SoundSet(tmp_path / "set", masks=True).write(), fix=tmp_path / "copy")
    assert report.fixes == ()
    assert json.loads((tmp_path / "copy" / "fixes.json").read_text()) == {"changes": []}
    for split in ("train", "val"):
        one, other = (open_data(tmp_path / name, split) for name in ("set", "copy"))
        for a, b in zip(one.records, other.records, strict=True):
            assert (a.bbox_xywh == b.bbox_xywh).all()
            assert list(a.segmentations) == list(b.segmentations)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = SoundSet(tmp_path / "set").write()
    with pytest.raises(ValueError, match="is not empty and is not overwritten"):
        check(folder, fix=folder)
    with pytest.raises(ValueError, match="lies in the data set"):
        check(folder, fix=folder / "repaired")
    assert not (folder / "repaired").exists()
