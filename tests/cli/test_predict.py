"""``boxwright predict``: which images are meant, where they are drawn, what the JSON says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import boxwright
from boxwright.cli.main import main
from boxwright.drawing import glyphs
from boxwright.workflows.named_images import name_images
from boxwright_runtime.detections import Detections
from sparse_ids import NAMES

Capture = pytest.CaptureFixture[str]


NOTE = "note: {album}: 1 files left out that are no images of a known kind: .txt 1\n"


@pytest.fixture
def album(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of several formats in two folders, beside a file that is none; also the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(drawn / "images" / "val_00000.jpg", folder / "one.jpg")
    with Image.open(drawn / "images" / "val_00001.jpg") as image:
        image.save(folder / "deep" / "two.PNG")
        image.convert("L").save(folder / "deep" / "three.bmp")
    (folder / "notes.txt").write_text("not an image")
    return folder


def predict(model: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    assert main(["predict", str(model), *map(str, arguments), "--json", "detections.json"]) == 0
    rows: list[dict[str, Any]] = json.loads(Path("detections.json").read_text())
    return rows


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["album/one.jpg"], ["one.jpg"]),
        (["album"], ["deep/three.bmp", "deep/two.PNG", "one.jpg"]),
        (["album/*.jpg"], ["one.jpg"]),
        (["album/**/*.PNG"], ["two.PNG"]),
        (["album/deep/*"], ["three.bmp", "two.PNG"]),
        (["album/one.jpg", "album"], ["one.jpg", "deep/three.bmp", "deep/two.PNG"]),
        (["album", "album/deep", "album/one.jpg"], ["deep/three.bmp", "deep/two.PNG", "one.jpg"]),
    ],
)
def test_files_folders_and_globs_each_image_once(album: Path, paths: list[str], expected: list[str]) -> None:
    assert album.is_dir()
    assert [image.name for image in name_images(paths)] == expected


def test_rows(trained: Path, album: Path) -> None:
    """The data set's own ids and names; boxes x, y, w, h in the image's pixels, and inside it; best first."""
    rows = predict(trained, album, "--threshold", "0")
    assert list(dict.fromkeys(row["file_name"] for row in rows)) == ["deep/three.bmp", "deep/two.PNG", "one.jpg"]
    for name in ("deep/three.bmp", "deep/two.PNG", "one.jpg"):
        with Image.open(album / name) as image:
            width, height = image.size
        own = [row for row in rows if row["file_name"] == name]
        assert len(own) == 120
        scores = [row["score"] for row in own]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        for row in own:
            assert list(row) == ["file_name", "category_id", "category_name", "bbox", "score"]
            assert NAMES[row["category_id"]] == row["category_name"]
            x, y, w, h = row["bbox"]
            assert min(x, y, w, h) >= 0
            assert x + w <= width + 1e-4
            assert y + h <= height + 1e-4


def test_rows_are_the_detections_of_python(trained: Path, album: Path) -> None:
    """Each of them; the order of nearly equal scores may differ, because the command folds the norms first."""
    rows = predict(trained, album / "one.jpg", "--threshold", "0", "--precision", "float32")
    expected = boxwright.load(trained).predict(album / "one.jpg")
    assert isinstance(expected, Detections)
    x, y, w, h = np.array([row["bbox"] for row in rows]).T
    boxes = np.abs(np.stack([x, y, x + w, y + h], 1)[:, None] - expected.boxes.numpy()).max(2) < 1e-2
    scores = np.abs(np.array([row["score"] for row in rows])[:, None] - expected.scores.numpy()) < 1e-5
    classes = np.array([row["category_id"] for row in rows])[:, None] == np.array(list(NAMES))[expected.labels.numpy()]
    same = boxes & scores & classes
    assert same.shape == (120, 120)
    assert same.any(0).all()
    assert same.any(1).all()


def test_the_threshold(trained: Path, album: Path, capsys: Capture) -> None:
    everything = predict(trained, album, "--threshold", "0")
    middle = sorted(row["score"] for row in everything)[len(everything) // 2]
    capsys.readouterr()
    some = predict(trained, album, "--threshold", repr(middle))
    assert some == [row for row in everything if row["score"] >= middle]
    assert 0 < len(some) < len(everything)
    expected = f"{len(some)} objects in 3 images, drawn in predictions, as JSON in detections.json\n"
    assert capsys.readouterr() == (expected, NOTE.format(album=album))


def test_without_any_detection_the_best_score_is_said(trained: Path, album: Path, capsys: Capture) -> None:
    best = max(row["score"] for row in predict(trained, album, "--threshold", "0"))
    capsys.readouterr()
    assert predict(trained, album, "--threshold", "1") == []
    expected = (
        "0 objects in 3 images, drawn in predictions, as JSON in detections.json; "
        f"the best score is {best:.2g}, below --threshold 1\n"
    )
    assert capsys.readouterr() == (expected, NOTE.format(album=album))


@pytest.mark.parametrize("kind", ["null", "link", "private"])
def test_json_goes_to_devices_and_through_links(trained: Path, album: Path, kind: str) -> None:
    target = Path("target.json")
    if kind == "null":
        target = Path("/dev/null")
    elif kind == "link":
        Path("real.json").write_text("old")
        target.symlink_to("real.json")
    else:
        target.write_text("old")
        target.chmod(0o600)
    assert main(["predict", str(trained), str(album / "one.jpg"), "--json", str(target)]) == 0
    if kind == "null":
        assert target.is_char_device()
    else:
        assert json.loads(target.read_text()) is not None
        assert target.is_symlink() == (kind == "link")
        assert (target.stat().st_mode & 0o777 == 0o600) == (kind == "private")


def test_json_on_standard_output_is_nothing_but_json(
    trained: Path, album: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained), str(album / "one.jpg"), "--threshold", "0", "--json", "/dev/stdout"]) == 0
    captured = capfd.readouterr()
    assert len(json.loads(captured.out)) == 120
    assert captured.err.startswith("120 objects in 1 image, drawn in predictions, as JSON in /dev/stdout\n")


def test_drawn_images(trained: Path, album: Path) -> None:
    """Drawings lie where the images were in their folder; formats that cannot hold colors become PNG.

    They have the size of the image, and a legend below it where there are many objects.
    """
    predict(trained, album, "--threshold", "0", "--out", "drawn/here")
    out, deep = Path("drawn/here"), ("deep/two.PNG", "deep/three.bmp")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "deep/three.png", "deep/two.PNG", "one.jpg"
    ]  # fmt: skip
    for name, source in zip(("one.jpg", "deep/two.PNG", "deep/three.png"), ("one.jpg", *deep), strict=True):
        with Image.open(out / name) as image, Image.open(album / source) as original:
            assert image.height > original.height
            part = image.convert("RGB").crop((0, 0, *original.size))
            difference = np.abs(np.asarray(part, int) - np.asarray(original.convert("RGB"), int))
        assert difference.mean() > 1


def test_styles_of_drawings(trained: Path, album: Path) -> None:
    """Without labels a drawing has the size of its image, lines of the width that is typed, and a legend on demand."""
    drawings = {}
    for name, options in {
        "plain": ["--labels", "none"],
        "legend": ["--labels", "none", "--legend"],
        "thick": ["--labels", "none", "--line-width", "9"],
        "short": ["--labels", "short"],
        "without": ["--labels", "short", "--no-legend"],
    }.items():
        predict(trained, album / "deep" / "two.PNG", "--threshold", "0", "--out", name, *options)
        drawings[name] = np.asarray(Image.open(Path(name, "two.PNG")))
    with Image.open(album / "deep" / "two.PNG") as image:
        width, height = image.size
    assert [drawings[name].shape[:2] == (height, width) for name in drawings] == [True, False, True, False, True]
    assert (drawings["legend"][:height, :width] == drawings["plain"]).all()
    assert (drawings["short"][:height, :width] == drawings["without"]).all()
    assert (drawings["without"] != drawings["plain"]).any()
    assert (drawings["thick"] != drawings["plain"]).any(2).mean() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "long"], "argument --labels: invalid choice: 'long'"),
        (["--line-width", "0"], "the line width is from 1 to 1000 pixels, not 0"),
        (["--font-size", "x"], "argument --font-size: invalid int value: 'x'"),
        (["--font", "none.ttf"], "none.ttf: no such font"),
        (["--font", "album/one.jpg"], "album/one.jpg is no font that can be drawn with"),
    ],
)
def test_a_wrong_style_is_an_error_before_anything_is_drawn(
    trained: Path, album: Path, capsys: Capture, options: list[str], message: str
) -> None:
    assert main(["predict", str(trained), str(album / "one.jpg"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("predictions").exists()


def test_a_note_names_glyphs_that_no_font_has(
    trained: Path, album: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs, "list_font_files", tuple)
    detector = boxwright.load(trained)
    names = ("细胞", "血", *(one.name for one in detector.categories[2:]))
    detector.categories = tuple(replace(one, name=name) for one, name in zip(detector.categories, names, strict=True))
    detector.save("renamed.pt")
    predict(Path("renamed.pt"), album, "--threshold", "0")
    ids = [one.id for one in detector.categories]
    note = f"{ids[0]} = 细胞, {ids[1]} = 血; install a font that has them"
    errors = capsys.readouterr().err
    assert errors.count("no font has the glyphs 细 (U+7EC6), 胞 (U+80DE), 血 (U+8840)") == 1
    assert note in " ".join(errors.split())


def test_an_image_without_detections_stays_as_it_is(trained: Path, album: Path) -> None:
    predict(trained, album / "deep" / "two.PNG", "--threshold", "1")
    with Image.open("predictions/two.PNG") as image, Image.open(album / "deep" / "two.PNG") as original:
        assert np.array_equal(np.asarray(image), np.asarray(original))


def test_an_image_does_not_depend_on_its_neighbors(trained: Path, album: Path) -> None:
    """In bfloat16, batches of other sizes round differently, by a few thousandths of a score."""
    one = predict(trained, album, "--threshold", "0", "--precision", "float32")
    three = predict(trained, album, "--threshold", "0", "--precision", "float32", "--batch-size", "3")
    assert [row["score"] for row in one] == pytest.approx([row["score"] for row in three], abs=1e-5)


def test_an_exif_rotated_image_is_upright(trained: Path, album: Path) -> None:
    """In the detections, and as it is drawn."""
    with Image.open(album / "one.jpg") as image:
        upright = image.convert("RGB")
    exif = Image.Exif()
    exif[274] = 6
    upright.save(album / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(album / "turned.png", exif=exif)
    paths = [album / "upright.png", album / "turned.png"]
    rows = predict(trained, *paths, "--threshold", "0", "--labels", "none", "--batch-size", "1")
    first, second = rows[:120], rows[120:]
    assert {row["file_name"] for row in second} == {"turned.png"}
    assert [{**row, "file_name": "upright.png"} for row in second] == first
    with Image.open("predictions/turned.png") as image:
        assert image.size == upright.size
        assert image.getexif().get(274, 1) == 1


def test_no_failed_image_costs_an_older_result(trained: Path, album: Path) -> None:
    """Nothing could be read, so there is nothing to write."""
    Path("detections.json").write_text("[1]")
    assert main(["predict", str(trained), str(album / "notes.txt"), "--json", "detections.json"]) == 2
    assert Path("detections.json").read_text() == "[1]"
    assert not Path("predictions").exists()


def test_results_in_cocos_form(
    rectangle_run: Path, rectangles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All detections, with the ids of the annotation file; measured, they have the numbers of the model."""
    monkeypatch.chdir(tmp_path)
    annotations = rectangles / "annotations" / "val.json"
    files = [str(rectangles / "images" / one["file_name"]) for one in json.loads(annotations.read_text())["images"]]
    assert main(["predict", str(rectangle_run), *files, "--coco", "coco.json", "--annotations", str(annotations)]) == 0
    assert min(one["score"] for one in json.loads(Path("coco.json").read_text())) < 0.3  # what drawings begin with
    data = boxwright.DataFiles(annotations={"val": annotations}, images={"val": rectangles / "images"})
    expected = boxwright.evaluate(rectangle_run, data, batch_size=1).boxes.numbers()
    assert expected["AP50"] > 0.1
    assert boxwright.evaluate_results("coco.json", data).boxes.numbers() == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("album")
def test_results_without_annotations(trained: Path) -> None:
    """Images are numbered, and named; --threshold counts where it is typed."""
    rows = predict(trained, "album", "--coco", "coco.json", "--threshold", "0.001")
    results = json.loads(Path("coco.json").read_text())
    names = ["deep/three.bmp", "deep/two.PNG", "one.jpg"]
    assert [(row["file_name"], row["score"]) for row in rows] == [
        (names[row["image_id"] - 1], row["score"]) for row in results
    ]
    assert all(names[row["image_id"] - 1] == row["file_name"] for row in results)
    assert {"image_id", "category_id", "file_name", "bbox", "score"} == set(results[0])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--annotations", "val.json"], "--annotations gives --coco's file its ids; give --coco FILE too"),
        (["--coco", "c.json", "--annotations", "val.json"], "annotation file val.json does not exist"),
    ],
)
@pytest.mark.usefixtures("album")
def test_annotations_that_do_not_fit(typed: list[str], message: str, trained: Path, capsys: Capture) -> None:
    assert main(["predict", str(trained), "album", *typed]) == 2
    assert message in capsys.readouterr().err
    assert not Path("c.json").exists()


@pytest.mark.usefixtures("album")
def test_images_that_the_annotations_lack(trained: Path, drawn: Path, capsys: Capture) -> None:
    annotations = drawn / "annotations" / "val.json"
    assert main(["predict", str(trained), "album", "--coco", "c.json", "--annotations", str(annotations)]) == 2
    assert "3 of 3 images are not in it" in capsys.readouterr().err
    assert not Path("c.json").exists()
