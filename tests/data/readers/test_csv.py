"""CSV: layouts, names and order of columns, what is repaired, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.records import DetectionData
from reader_examples import ExampleImage, findings_of, kinds_of


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for image in images:
        image.save(folder / "images" / image.file_name)
        size = f"{image.file_name},{image.width},{image.height}"
        rows += [f"{size},{name},{x1},{y1},{x2},{y2}" for name, x1, y1, x2, y2 in image.objects] or [f"{size},,,,,"]
    (folder / f"{split}_labels.csv").write_text("\n".join(rows) + "\n")


HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
ROW = "a.png,40,20,dog,1,2,11,12"
BOX = ("dog", 1, 2, 11, 12)


def put(root: Path, table: str, *lines: str, images: Sequence[str] = ("a.png",)) -> None:
    """Write a table, and images of 40 x 20 pixels."""
    for image in images:
        ExampleImage(Path(image).name, 20, 40, ()).save(root / image)
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def boxes_of(data: DetectionData) -> dict[str, list[tuple[object, ...]]]:
    return {
        record.path.name: [
            (data.categories[label].name, *box)
            for label, box in zip(record.labels.tolist(), record.boxes().tolist(), strict=True)
        ]
        for record in data.records
    }


@pytest.mark.parametrize(
    ("table", "image", "split"),
    [
        ("train.csv", "a.png", "train"),
        ("train_labels.csv", "images/a.png", "train"),
        ("train_labels.csv", "images/train/a.png", "train"),
        ("data/train-annotations.csv", "train/a.png", "train"),
        ("annotations/validate.csv", "images/a.png", "val"),
        ("train/_annotations.csv", "train/a.png", "train"),
        ("valid/_annotations.csv", "valid/a.png", "val"),
        ("annotations.csv", "images/a.png", "train"),
        ("anything.csv", "a.png", "train"),
        ("labels.tsv", "a.png", "train"),
    ],
)
def test_layouts(tmp_path: Path, table: str, image: str, split: str) -> None:
    separator = "\t" if table.endswith("tsv") else ","
    put(tmp_path, table, HEADER.replace(",", separator), ROW.replace(",", separator), images=[image])
    assert list_splits(tmp_path) == [split]
    data = open_data(tmp_path, split)
    assert boxes_of(data) == {"a.png": [BOX]}
    assert data.records[0].path == tmp_path / image
    assert findings_of(data) == []


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,x1,y1,x2,y2,class", "images/a.png,1,2,11,12,dog"),
        ("a.png,1,2,11,12,dog", "a.png,1,2,11,12,dog"),
        ("image_id,x_min,y_min,x_max,y_max,class_name", "a,1,2,11,12,dog"),
        ("Image Path,Label,Left,Top,Right,Bottom", "C:\\me\\a.png,dog,1,2,11,12"),
        ("label;file;ymin;xmin;ymax;xmax", "dog;./a.png;2;1;12;11"),
        ("\ufefffilename|class|bbox_x|bbox_y|bbox_width|bbox_height", "a.png|dog|1|2|10|10"),
        ("image,category,x,y,w,h,width,height", "a.png,dog,1,2,10,10,40,20"),
        ("image,category,xmin,ymin,width,height", "a.png,dog,1,2,10,10"),
        ('"filename","class","xmin","ymin","xmax","ymax"', '"a.png","dog","1"," 2 ","11.0","1.2e1"'),
        ("filename;class;xmin;ymin;xmax;ymax", "a.png;dog;1,0;2,0;11,0;12"),
    ],
)
def test_columns(tmp_path: Path, header: str, row: str) -> None:
    put(tmp_path, "train.csv", header, row)
    rows = 2 if header == row else 1
    data = open_data(tmp_path)
    assert boxes_of(data) == {"a.png": [BOX] * rows}
    assert set(kinds_of(data)) <= {"file_name_last_parts", "file_name_suffix"}


@pytest.mark.parametrize(
    "header",
    [
        "filename,label",
        "id,name",
        "epoch,loss,x1,y1,x2,y2",
        "filename,class,xmin,xmin,xmax,ymax",
        "",
        "a.png,1,2,3,4,5,6",
    ],
)
def test_other_tables_are_not_taken(tmp_path: Path, header: str) -> None:
    put(tmp_path, "train.csv", header, "a,b")
    assert not find_reader("csv").recognizes(tmp_path)


def test_images_without_objects(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", HEADER, ROW, "b.png,40,20,,,,,", images=["a.png", "b.png", "c.png", "d.png"])
    put(tmp_path, "val.csv", HEADER, ROW.replace("a.png", "d.png"), images=[])
    data = open_data(tmp_path)
    assert boxes_of(data) == {"a.png": [BOX], "b.png": []}
    assert [str(one) for one in findings_of(data)] == ["c.png"]
    assert kinds_of(data) == {"image_without_annotation_file": 1}
    headless = tmp_path / "headless"
    put(headless, "train.csv", "b.png,,,,,", "a.png,1,2,11,12,dog", images=["a.png", "b.png"])
    assert boxes_of(open_data(headless)) == {"b.png": [], "a.png": [BOX]}


def test_repairs(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", HEADER, "a.png,40,20,dog,11,12,1,2", "", HEADER, ROW, ",,,,,,,")
    data = open_data(tmp_path)
    assert boxes_of(data) == {"a.png": [BOX, BOX]}
    assert kinds_of(data) == {"swapped_corners": 1, "repeated_header": 1}
    assert str(findings_of(data)[-1]).startswith(("a.png (train.csv line 2: 11 12 1 2)", "train.csv (line 4)"))


def test_fractions(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "ImageID,Source,LabelName,XMin,XMax,YMin,YMax,IsGroupOf", "a,x,dog,0.25,0.5,0,1,1")
    data = open_data(tmp_path)
    assert boxes_of(data) == {"a.png": [("dog", 10, 0, 20, 20)]}
    assert data.records[0].crowd.tolist() == [True]
    assert kinds_of(data) == {"fractions_read": 1, "file_name_suffix": 1}


def test_a_file_that_lies_anywhere(tmp_path: Path) -> None:
    put(tmp_path, "x/any.csv", HEADER, ROW, images=["x/a.png"])
    assert boxes_of(open_data(None, annotations=tmp_path / "x" / "any.csv")) == {"a.png": [BOX]}
    put(tmp_path, "y/any.csv", HEADER, ROW, images=["z/a.png"])
    assert boxes_of(open_data(None, annotations=tmp_path / "y" / "any.csv", images=tmp_path / "z")) == {"a.png": [BOX]}
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_data(None, annotations=tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,40,20,dog,1,2,11", r"line 3: it has 7 cells, and its table at least 8"),
        ("a.png,40,20,dog,1,2,11,x", "line 3: coordinates must be four finite numbers, not 'x'"),
        ("a.png,40,20,dog,1,2,11,", "line 3: coordinates must be four finite numbers, not ''"),
        ("a.png,40,20,dog,1,2,nan,12", "not 'nan'"),
        ("a.png,40,20,dog,1,2," + "9" * 401 + ",12", "coordinates must be four finite numbers"),
        ("a.png,40,20,,1,2,11,12", "its object has no class"),
        (",40,20,dog,1,2,11,12", "it names no image"),
        (
            'a.png,40,20,"' + "x" * 200_000,
            "cannot be read behind line 2: field larger than field limit .* is never closed",
        ),
    ],
)
def test_faults(tmp_path: Path, row: str, message: str) -> None:
    put(tmp_path, "train.csv", HEADER, ROW, row)
    with pytest.raises(ValueError, match=message) as caught:
        open_data(tmp_path)
    assert "\n" not in str(caught.value)
    assert "train.csv" in str(caught.value)


def test_another_encoding(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", HEADER)
    (tmp_path / "train.csv").write_bytes(f"{HEADER}\n{ROW}\n".replace("dog", "M\u00f6we").encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.csv cannot be read: .*; save it as UTF-8"):
        open_data(tmp_path)


def test_no_row(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", HEADER)
    with pytest.raises(ValueError, match="it has no row with an image"):
        open_data(tmp_path)


def subjects(data: DetectionData, kind: str) -> list[str]:
    return [finding.subject for finding in data.findings if finding.kind.name == kind]


@pytest.mark.parametrize(
    ("tables", "split", "rivals", "unread"),
    [
        (["train.csv", "train_labels.csv"], "train", ["train_labels.csv"], []),
        (["val.csv", "valid.csv"], "val", ["valid.csv"], []),
        (["train.csv", "holdout.csv"], "train", [], ["holdout.csv"]),
        (["train/_annotations.csv", "train.csv", "train/more.csv"], "train", ["train.csv"], ["train/more.csv"]),
        (["annotations.csv", "labels.csv", "x.csv"], "train", ["labels.csv"], ["x.csv"]),
        (["a.csv", "b.csv"], "train", [], ["b.csv"]),
    ],
)
def test_tables_that_are_not_read_are_named(
    tmp_path: Path, tables: list[str], split: str, rivals: list[str], unread: list[str]
) -> None:
    for table in tables:
        put(tmp_path, table, HEADER, ROW)
    (tmp_path / "results.csv").write_text("epoch,loss\n1,2\n")
    data = open_data(tmp_path, split)
    assert data.source == tmp_path / tables[0]
    assert subjects(data, "split_claimed_twice") == rivals
    assert subjects(data, "unread_annotation_file") == unread


@pytest.mark.parametrize("names", [("p/a.png", "q/a.png"), ("x/p/a.png", "p/a.png"), ("A.png", "a.png")])
def test_two_images_never_become_one(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [ROW.replace("a.png", names[0]), ROW.replace("a.png", names[1]).replace("dog", "cat")]
    put(tmp_path, "train.csv", HEADER, *rows, images=["images/a.png"])
    with pytest.raises(ValueError, match=r"the files of 2 of 2 images .* are not clear|its file a\.png is that of"):
        open_data(tmp_path)


@pytest.mark.parametrize("name", ["A.PNG", "https://x/a.png?z=1", "a.jpg", "./a.png", "some\\where\\a.png"])
def test_images_that_are_used_are_not_called_unused(tmp_path: Path, name: str) -> None:
    put(tmp_path, "train.csv", HEADER, ROW.replace("a.png", name), images=["images/a.png", "images/b.png"])
    if name == "a.jpg":
        (tmp_path / "images/a.png").rename(tmp_path / "images/a.JPEG")
    data = open_data(tmp_path)
    assert subjects(data, "image_without_annotation_file") == ["b.png"]


def test_a_class_without_coordinates_is_named(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", HEADER, ROW, "a.png,40,20,cat,,,,")
    data = open_data(tmp_path)
    assert boxes_of(data) == {"a.png": [BOX]}
    assert [str(one) for one in data.findings if one.kind.name == "row_without_box"] == [
        "a.png (train.csv line 3: cat)"
    ]


@pytest.mark.parametrize(
    ("mark", "is_crowd"),
    [
        ("yes", True),
        ("Y", True),
        ("TRUE", True),
        ("1.0", True),
        ("no", False),
        ("0", False),
        ("", False),
        ("-1", False),
    ],
)
def test_marks_of_crowd_regions(tmp_path: Path, mark: str, is_crowd: bool) -> None:
    put(tmp_path, "train.csv", f"{HEADER},iscrowd", f"{ROW},{mark}")
    assert open_data(tmp_path).records[0].crowd.tolist() == [is_crowd]


def test_a_mark_that_is_neither_yes_nor_no(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", f"{HEADER},iscrowd", f"{ROW},perhaps")
    with pytest.raises(ValueError, match="line 2: the mark of a crowd region must be 0 or 1, yes or no, not 'perhaps'"):
        open_data(tmp_path)
