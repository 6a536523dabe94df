"""Data sets in another format, from Python and from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import boxwright
from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.workflows.convert_data import DataWriter, find_writer, list_writers, writer_summary
from heard import Heard

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_data_set(folder, train=3, val=2, image_size=64)
    return folder


def boxes_of(folder: Path, split: str) -> dict[str, list[tuple[str, list[float]]]]:
    data = open_data(folder, split)
    return {
        record.path.name: [
            (data.categories[label].name, [round(side, 6) for side in box])
            for label, box in zip(record.labels.tolist(), record.bbox_xywh.tolist(), strict=True)
        ]
        for record in data.records
    }


def test_formats_say_what_they_are() -> None:
    assert list_writers() == ["coco", "voc", "yolo"]
    for name in list_writers():
        assert isinstance(find_writer(name), DataWriter)
        assert 20 <= len(writer_summary(name)) <= 120


@pytest.mark.parametrize("chain", [["yolo", "voc", "coco"], ["voc", "yolo", "coco"]])
def test_round_trips(drawn_set: Path, tmp_path: Path, chain: list[str]) -> None:
    source = drawn_set
    for number, name in enumerate(chain):
        observer = Heard()
        converted = boxwright.convert_data(source, tmp_path / f"{number}", to=name, observer=observer)
        assert converted.counts.keys() == {"train", "val"}
        source = converted.folder
    for split in ("train", "val"):
        assert boxes_of(source, split) == boxes_of(drawn_set, split)
    assert [one.name for one in open_data(source).categories] == [one.name for one in open_data(drawn_set).categories]


def test_the_command(drawn_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["convert-data", str(drawn_set), str(out), "--to", "yolo", "--copy"]) == 0
    captured = capsys.readouterr()
    count = sum(len(record.labels) for record in open_data(drawn_set).records)
    assert f"{out}: train 3 images, {count} objects\n" in captured.out
    assert "objects whose masks this format does not hold: train/" in captured.err
    assert not any(path.samefile(drawn_set / "images" / path.name) for path in out.rglob("*.jpg"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["SET", "OUT", "--to", "yoloo"],
            "data is not written as 'yoloo'; did you mean 'yolo'? formats: coco, voc, yolo",
        ),
        (["SET", "OUT"], "required: --to"),
        (["SET", "SET", "--to", "voc"], "is not empty and is not overwritten: give a folder that does not exist"),
        (["SET", "SET/images/new", "--to", "voc"], "is inside the data set"),
        (["GONE", "OUT", "--to", "voc"], "GONE does not exist"),
        (["EMPTY", "OUT", "--to", "voc"], "EMPTY is empty"),
        (["OTHER", "OUT", "--to", "voc"], "no annotations of a known format; it holds notes.txt"),
        (["SET", "FILE", "--to", "voc"], "FILE is a file"),
        (["SET", "FILE/out", "--to", "voc"], "is a file, not a folder"),
        (["SET", "OUT", "--to", "voc", "--data-format", "yolo"], "no split"),
    ],
)
def test_one_line_and_nothing_written(
    drawn_set: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn_set, "SET")
    Path("EMPTY").mkdir()
    Path("OTHER").mkdir()
    Path("OTHER/notes.txt").write_text("x")
    Path("FILE").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert-data", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, line = captured.err.splitlines()
    assert line.startswith("boxwright: error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("to", ["voc", "yolo"])
@pytest.mark.parametrize("name", ["bccd", "coco_mini", "deeppcb", "nuclei"])
def test_real_sets_come_back(tmp_path: Path, name: str, to: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real data set {name!r} is not beside the repository")
    there = boxwright.convert_data(SHARED / name, tmp_path / "there", to=to, observer=Heard())
    back = boxwright.convert_data(there.folder, tmp_path / "back", to="coco", observer=Heard())
    lost = sum(finding.kind.name == "crowd_left_out" for finding in there.written)
    assert lost == (7 if (name, to) == ("coco_mini", "yolo") else 0)
    count = {split: images for split, (images, _) in there.counts.items()}
    assert {split: images for split, (images, _) in back.counts.items()} == count
    assert sum(objects for _, objects in back.counts.values()) + lost == sum(
        objects for _, objects in there.counts.values()
    )
