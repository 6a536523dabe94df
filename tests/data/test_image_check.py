"""Images that are missing or cannot be read are found before anything starts, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boxwright.data.image_inspection import IMAGE_CUT
from boxwright.data.open import open_data


class TestBadImages:
    def test_all_bad_images_in_one_error(self, tiny) -> None:
        for i in range(5):
            tiny.document["images"].append({"id": 100 + i, "file_name": f"gone{i}.png"})
        file = tiny.write()
        whole = (tiny.root / "images/a.png").read_bytes()
        (tiny.root / "images/a.png").write_bytes(whole[: len(whole) // 2])
        (tiny.root / "images/c.png").write_text("no image")
        with pytest.raises(ValueError, match="of 8 images in") as caught:
            open_data(None, annotations=file, images=tiny.root / "images")
        message = str(caught.value)
        assert "5 missing: gone0.png, gone1.png, gone2.png, ... and 2 unreadable: a.png, c.png (" in message
        assert "a.png cannot be read as an image: " in message
        assert message.endswith("restore the files or take them out of the data set")
        assert "\n" not in message

    def test_headers_only_finds_what_is_missing(self, tiny) -> None:
        file = tiny.write()
        whole = (tiny.root / "images/a.png").read_bytes()
        (tiny.root / "images/a.png").write_bytes(whole[: len(whole) // 2])
        assert len(open_data(None, annotations=file, images=tiny.root / "images", check_images=False).records) == 3
        (tiny.root / "images/c.png").unlink()
        with pytest.raises(ValueError, match=r"of 3 images in .*, 1 missing: c\.png; restore"):
            open_data(None, annotations=file, images=tiny.root / "images", check_images=False)

    def test_truncated_copy_of_a_real_set(self, real_data, tmp_path: Path) -> None:
        source = real_data("coco_mini")
        (tmp_path / "images").mkdir()
        names = [image["file_name"] for image in json.loads((source / "annotations/val.json").read_text())["images"]]
        for index, name in enumerate(names):
            content = (source / "images" / name).read_bytes()
            (tmp_path / "images" / name).write_bytes(content[:-500] if index == 7 else content)
        read = open_data(None, annotations=source / "annotations/val.json", images=tmp_path / "images")
        (finding,) = [one for one in read.findings if one.kind is IMAGE_CUT]
        assert finding.subject == names[7]
        assert any(
            "1 JPEGs without their end used as far as they go" in note and names[7] in note for note in read.notes
        )
        assert [one.size for one in read.facts] == [record.read().shape[:2] for record in read.records]
