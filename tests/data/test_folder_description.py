"""Folders of no known format: the message says what is in them, and what they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.data.open import open_data
from reader_examples import ExampleImage

COCO = '{"images": [], "annotations": []}'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.json": COCO}, "a.json looks like COCO and lacks categories"),
        (
            {"deep/a.json": COCO[:-1] + ', "categories": []}'},
            "deep/a.json looks like COCO: rename it to annotations/train.json",
        ),
        ({"a.json": '[{"data": {}, "annotations": []}]'}, "a.json is Label Studio's own JSON: export the project"),
        ({"a.json": '{"a.png23": {"regions": []}}'}, "a.json is VIA's own JSON"),
        ({"a.json": '{"a'}, "a.json is no valid JSON"),
        ({"a.json": "[" * 100_000}, "a.json is no valid JSON"),
        ({"annotations.xml": "<annotations><image/></annotations>"}, "annotations.xml is CVAT's own XML"),
        ({"train.csv": "filename;class;xmin\n"}, "train.csv looks like CSV and lacks the columns ymin, xmax, ymax"),
        ({"a.txt": "0 0.5 0.5 0.1 0.1\n"}, "a.txt looks like a label file of YOLO, and has no data.yaml"),
        ({"a.tfrecord": "x"}, "TFRecord files are not read: export"),
        ({}, "there are images, but no file with annotations"),
        ({"notes.md": "x"}, "it holds a.png, b.png, notes.md (3 files: 2 .png, 1 .md); data for detection is"),
        ({"sub/data.yaml": "train: x\nnames: [a]\n"}, "its folder sub/ looks like yolo: give that"),
    ],
)
def test_what_is_there_and_what_is_not(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name in ("a.png", "b.png"):
        ExampleImage(name, 4, 4, ()).save(tmp_path / name)
    if "a.txt" in files:
        (tmp_path / "a.png").unlink()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no annotations of a known format; it holds ") as caught:
        open_data(tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
