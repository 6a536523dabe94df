"""The drawn data set: what it promises in its docstring, measured on what it wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from boxwright.data.open import open_data
from boxwright.data.synthetic.scenes import CLASSES, LEAST_VISIBLE, paint_scene, signed_distance
from boxwright.data.synthetic.shapes import MARKER, draw_data_set, encode_run_lengths


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "set"
    draw_data_set(out, train=120, val=20, seed=3)
    return out


def annotations(out: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((out / "annotations" / f"{split}.json").read_text())


def digest(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects(segmentation, *segmentation["size"])).astype(bool)


def test_masks_boxes_and_areas_agree(drawn: Path) -> None:
    content = annotations(drawn)
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    union: dict[int, np.ndarray] = {}
    for annotation in content["annotations"]:
        mask = decode(annotation["segmentation"])
        assert list(mask.shape) == sizes[annotation["image_id"]]
        assert annotation["area"] == mask.sum() > 0
        assert annotation["iscrowd"] == 0
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation["bbox"]
        assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        covered = union.setdefault(annotation["image_id"], np.zeros_like(mask))
        assert not (covered & mask).any(), "visible pixels belong to one object only"
        covered |= mask


def test_images_match_the_file(drawn: Path) -> None:
    for split, size in (("train", 120), ("val", 20)):
        images = annotations(drawn, split)["images"]
        assert len(images) == size
        for entry in images:
            with Image.open(drawn / "images" / entry["file_name"]) as image:
                assert image.size == (entry["width"], entry["height"])
            assert 192 <= min(image.size) <= max(image.size) <= 256


def test_a_drawn_set_is_read_without_notes(drawn: Path) -> None:
    for split, size in (("train", 120), ("val", 20)):
        data = open_data(drawn, split)
        assert len(data.records) == size
        assert data.notes == ()
        assert tuple(category.name for category in data.categories) == CLASSES
        assert sum(len(record.labels) for record in data.records) == len(annotations(drawn, split)["annotations"])


def test_variety(drawn: Path) -> None:
    content = annotations(drawn)
    areas = np.array([annotation["area"] for annotation in content["annotations"]])
    small, large = (areas < 32**2).mean(), (areas > 96**2).mean()
    assert 0.3 < small < 0.6
    assert 0.01 < large < 0.15
    per_class = np.bincount([annotation["category_id"] for annotation in content["annotations"]])[1:]
    assert [category["name"] for category in content["categories"]] == list(CLASSES)
    assert per_class.min() > 0.6 * per_class.mean()
    select_positives = {annotation["image_id"] for annotation in content["annotations"]}
    assert 0.005 < 1 - len(select_positives) / len(content["images"]) < 0.12


def test_same_seed_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw_data_set(tmp_path / "again", train=120, val=20, seed=3)
    assert digest(drawn) == digest(tmp_path / "again")


def test_seed_and_split_change_images_and_the_split_size_does_not(tmp_path: Path) -> None:
    for name, train, seed in (("a", 2, 0), ("b", 3, 0), ("c", 2, 1)):
        draw_data_set(tmp_path / name, train=train, val=2, seed=seed, image_size=96)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    image, held_out = "images/train_00001.jpg", "images/val_00001.jpg"
    assert a[image] == b[image] != c[image]
    assert a[held_out] == b[held_out] != c[held_out]
    assert a[image] != a[held_out]


def test_a_complete_set_is_kept_and_another_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    first = draw_data_set(out, train=3, val=2, image_size=96)
    before = (out / "images/train_00000.jpg").stat().st_mtime_ns
    assert draw_data_set(out, train=3, val=2, image_size=96) == first
    assert (out / "images/train_00000.jpg").stat().st_mtime_ns == before

    own = out / "images" / "holiday.jpg"
    own.write_bytes(b"mine")
    draw_data_set(out, train=1, val=1, image_size=96, seed=5)
    assert {path.name for path in (out / "images").iterdir()} == {
        "train_00000.jpg",
        "val_00000.jpg",
        "holiday.jpg",
    }
    assert own.read_bytes() == b"mine"


def test_an_interrupted_set_is_drawn_anew(tmp_path: Path) -> None:
    draw_data_set(tmp_path, train=2, val=1, image_size=96)
    complete = digest(tmp_path)
    marker = json.loads((tmp_path / MARKER).read_text())
    (tmp_path / MARKER).write_text(json.dumps({**marker, "complete": False}))
    (tmp_path / "images/train_00000.jpg").unlink()
    draw_data_set(tmp_path, train=2, val=1, image_size=96)
    assert digest(tmp_path) == complete


@pytest.mark.parametrize("name", ["notes.txt", MARKER, "annotations"])
def test_foreign_folders_are_left_alone(tmp_path: Path, name: str) -> None:
    if name == "annotations":
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text("{}")
    else:
        (tmp_path / name).write_text("[not ours")
    before = digest(tmp_path)
    with pytest.raises(ValueError, match="is not empty and was not drawn by boxwright: name another folder"):
        draw_data_set(tmp_path, train=1, val=1)
    assert digest(tmp_path) == before


def test_a_file_in_the_way_and_bad_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file: name a folder"):
        draw_data_set(tmp_path / "file")
    for options, message in (
        ({"train": 0}, "train=0"),
        ({"val": -1}, "val=-1"),
        ({"image_size": 32}, "at least 64 pixels, got 32"),
        ({"seed": -1}, "got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_data_set(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_shapes_follow_their_formulas() -> None:
    """Areas in units of the squared radius, from the shapes' geometry."""
    axis = np.arange(-60, 60, dtype=np.float32) + np.float32(0.5)
    x, y = np.meshgrid(axis, -axis)
    expected = {
        "circle": np.pi,
        "square": 2.0,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": 5 * 0.42 * np.sin(np.pi / 5),
        "cross": 4 * 0.3 * (2 * 0.95 - 0.3),
        "ring": np.pi * (1 - 0.25),
    }
    assert tuple(expected) == CLASSES
    for kind, area in expected.items():
        distance = signed_distance(kind, x, y, 50.0)
        assert (0.5 - distance).clip(0, 1).sum() / 50**2 == pytest.approx(area, rel=0.002)
        slope = np.hypot(*np.gradient(distance))
        assert np.median(slope) == pytest.approx(1.0, abs=1e-3), "a distance changes by one pixel per pixel"
    with pytest.raises(ValueError, match="unknown shape 'blob': choose from circle, square"):
        signed_distance("blob", x, y, 50.0)


def test_every_shape_can_be_recognized() -> None:
    """No mask is less than the promised fraction of the smallest shape there can be."""
    for seed in range(30):
        scene = paint_scene(np.random.default_rng(seed), 160, 200, 8)
        for shape in scene.shapes:
            assert shape.mask.sum() >= LEAST_VISIBLE * 5 * 0.42 * np.sin(np.pi / 5) * 10**2 * 0.9


def test_run_lengths_against_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for fraction in (0.0, 0.1, 0.5, 0.9, 1.0):
        mask = rng.random((13, 7)) < fraction
        encoded = encode_run_lengths(mask)
        assert sum(encoded["counts"]) == mask.size
        assert np.array_equal(decode(encoded), mask)
