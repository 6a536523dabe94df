"""``boxwright tile``: a data set of tiles in COCO's layout, and what was cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxwright
from boxwright.cli.main import main
from boxwright.data.open import open_data


def test_the_command_writes_what_can_be_trained_on(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiles"
    assert main(["tile", str(drawn), str(out), "--size", "48", "--overlap", "0.25"]) == 0
    printed = capsys.readouterr().out
    whole = open_data(drawn, split="val")
    tiled = open_data(out, split="val")
    listing = json.loads((out / "tiles.json").read_text())
    assert (listing["size"], listing["overlap"], listing["min_visible"]) == (48, 0.25, 0.5)
    rows = listing["splits"]["val"]["tiles"]
    assert len(rows) == len(tiled.records)
    assert f"{out}: val {len(rows)} tiles" in printed
    assert [category.id for category in tiled.categories] == [category.id for category in whole.categories]
    sources = {record.path.as_posix(): record for record in whole.records}
    for row, record in zip(rows, tiled.records, strict=True):
        image = sources[row["source"]].read()
        part = image[row["top"] :, row["left"] :][: record.height, : record.width]
        np.testing.assert_array_equal(record.read(), part)
    # Each object is an object in some tile, or listed.
    shown = sum(int((~record.crowd).sum()) for record in tiled.records)
    expected = sum(len(record.labels) for record in whole.records)
    assert shown >= expected - len(listing["splits"]["val"]["never_whole"])
    crowds = sum(int(record.crowd.sum()) for record in tiled.records)
    assert sum(len(row["cut"]) for row in rows) == crowds > 0
    assert main(["check", str(out)]) == 0


def test_empty_tiles_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    samples = [{"image": tmp_path / "a.png", "boxes": [[10, 10, 30, 30]], "labels": [0]}]
    data = boxwright.ImageDataset(samples, ["thing"])
    tiles = boxwright.TileOptions(size=100)
    tiled = boxwright.tile({"train": data}, tmp_path / "out", tiles, with_empty=False)
    assert [image.tile.left for image in tiled.splits["train"].images] == [0]
    assert tiled.splits["train"].num_empty == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "8"], "32 or more"),
        ([], "--size"),
        (["--size", "64", "--min-visible", "2"], "between 0 and 1"),
    ],
)
def test_mistakes(
    drawn: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tile", str(drawn), str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert main(["tile", str(drawn), str(tmp_path), "--size", "64"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
