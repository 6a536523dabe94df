"""Faults planted in a sound data set one by one: each is found, in its place, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from box_plants import corners_in_first_images, halve_images, move_boxes, set_boxes, upsample
from boxwright.workflows.check import check
from image_plants import (
    FIRST,
    Plant,
    brighten,
    change_file,
    change_pixels,
    cut_jpeg,
    flip_byte,
    repeat_image,
    resize_image,
    save_16_bits,
    save_turned,
)
from sound_set import HEIGHT, WIDTH, SoundSet


def set_first(**values: Any) -> Plant:
    """Change the first object of train; an area follows from a box unless it is given."""

    def plant(sound: SoundSet) -> None:
        first = sound.annotations()[0]
        first.update(values)
        if "bbox" in values and "area" not in values:
            first["area"] = values["bbox"][2] * values["bbox"][3]

    return plant


def set_all(key: str, value: Any, split: str = "train") -> Plant:
    def plant(sound: SoundSet) -> None:
        for one in sound.annotations(split):
            one[key] = value

    return plant


def repeat_first(*, category_id: int = 1, shift: float = 0.0) -> Plant:
    def plant(sound: SoundSet) -> None:
        first = dict(sound.annotations()[0], id=9000, category_id=category_id)
        first["bbox"] = [first["bbox"][0] + shift, *first["bbox"][1:]]
        sound.annotations().append(first)

    return plant


def crowd_image(sound: SoundSet) -> None:
    boxes = [[2 + 9 * (i % 10), 2 + 5.5 * (i // 10), 7, 4.5] for i in range(100)]
    sound.annotations()[:] = [one for one in sound.annotations() if one["image_id"] != 1] + [
        {"id": 5000 + i, "image_id": 1, "category_id": 1 + i % 3, "bbox": box} for i, box in enumerate(boxes)
    ]


def add_empty_images(count: int) -> Plant:
    """Take the objects of the first images of val away."""

    def plant(sound: SoundSet) -> None:
        empty = {one["id"] for one in sound.images("val")[:count]}
        sound.annotations("val")[:] = [one for one in sound.annotations("val") if one["image_id"] not in empty]

    return plant


def rename_class(number: int, name: str) -> Plant:
    def plant(sound: SoundSet) -> None:
        for category in sound.entries("categories"):
            if category["id"] == number:
                category["name"] = name

    return plant


def drop_objects(split: str, category_id: int, keep: int = 0) -> Plant:
    def plant(sound: SoundSet) -> None:
        of_class = [one for one in sound.annotations(split) if one["category_id"] == category_id]
        for one in of_class[keep:]:
            sound.annotations(split).remove(one)

    return plant


def imbalance(sound: SoundSet) -> None:
    """302 objects of one class in train; those of another class are left in three images."""
    for image in sound.images():
        for i in range(25):
            box = [2 + 18 * (i % 5), 32 + 6 * (i // 5), 16 + i % 3, 5]
            sound.annotations().append(
                {"id": 5000 + 100 * image["id"] + i, "image_id": image["id"], "category_id": 1, "bbox": box}
            )
    for one in sound.annotations():
        if one["id"] < 5000:
            one["bbox"][1] = min(one["bbox"][1], 10)
            one["bbox"][3] = min(one["bbox"][3], 20)
            one["area"] = one["bbox"][2] * one["bbox"][3]
    drop_objects("train", 2, keep=3)(sound)


def frequency_shift(sound: SoundSet) -> None:
    for split in ("train", "val"):
        for image in sound.images(split):
            for i in range(10):
                box = [2 + 18 * (i % 5), 42 + 10 * (i // 5), 16 + i % 3, 9]
                category = 1 if split == "train" else 2
                sound.annotations(split).append(
                    {"id": 5000 + 100 * image["id"] + i, "image_id": image["id"], "category_id": category, "bbox": box}
                )
        for one in sound.annotations(split):
            if one["id"] < 5000:
                one["bbox"][1] = min(one["bbox"][1], 10)
                one["bbox"][3] = min(one["bbox"][3], 20)
                one["area"] = one["bbox"][2] * one["bbox"][3]


def size_shift(sound: SoundSet) -> None:
    """Objects of val have a third of the sides of those of train, of which there are many."""
    for split in ("train", "val"):
        for image in sound.images(split):
            for i in range(9):
                side = 4 if split == "val" else 18
                box = [3 + 30 * (i % 3), 2 + 21 * (i // 3), side, side + i % 3]
                annotation = {"id": 5000 + 100 * image["id"] + i, "image_id": image["id"], "bbox": box}
                sound.annotations(split).append({**annotation, "category_id": 1 + i % 3})
        sound.annotations(split)[:] = [one for one in sound.annotations(split) if one["id"] >= 5000]


def rename_split(split: str, name: str) -> Plant:
    def plant(sound: SoundSet) -> None:
        sound.documents[name] = sound.documents.pop(split)

    return plant


def use_file_of_train(sound: SoundSet) -> None:
    sound.pixels.pop(sound.images("val")[0]["file_name"])
    sound.images("val")[0]["file_name"] = sound.images()[0]["file_name"]


def cut_split(sound: SoundSet) -> None:
    left = {one["id"] for one in sound.images("val")[:8]}
    for one in sound.images("val")[8:]:
        sound.pixels.pop(one["file_name"])
    sound.documents["val"]["images"] = sound.images("val")[:8]
    sound.annotations("val")[:] = [one for one in sound.annotations("val") if one["image_id"] in left]


def new_category(split: str, category_id: int, name: str, *, use: bool = False) -> Plant:
    def plant(sound: SoundSet) -> None:
        sound.documents[split]["categories"].append({"id": category_id, "name": name})
        if use:
            sound.annotations(split)[0]["category_id"] = category_id

    return plant


def in_every_split(plant: Callable[[str], Plant]) -> Plant:
    def plant_all(sound: SoundSet) -> None:
        for split in tuple(sound.documents):
            plant(split)(sound)

    return plant_all


def renumber_val(sound: SoundSet) -> None:
    for category in sound.documents["val"]["categories"]:
        category["id"] += 100
    for one in sound.annotations("val"):
        one["category_id"] += 100


def list_again(sound: SoundSet) -> None:
    sound.images().append(dict(sound.images()[0], id=7000))
    for one in sound.annotations()[:3]:
        sound.annotations().append(dict(one, id=one["id"] + 7000, image_id=7000))


def copy_split(split: str, name: str) -> Plant:
    def plant(sound: SoundSet) -> None:
        sound.documents[name] = json.loads(json.dumps(sound.documents[split]))

    return plant


def set_polygon(*points: float) -> Plant:
    """Give the first object of train another polygon, of a data set with masks."""

    def plant(sound: SoundSet) -> None:
        sound.annotations()[0]["segmentation"] = [list(points)]

    return plant


def in_first_box(make: Callable[[float, float, float, float], list[float]], *, area: float | None = None) -> Plant:
    """Give the first object a polygon that is made of the corners of its box."""

    def plant(sound: SoundSet) -> None:
        x, y, w, h = sound.annotations()[0]["bbox"]
        sound.annotations()[0]["segmentation"] = [make(x, y, x + w, y + h)]
        if area is not None:
            sound.annotations()[0]["area"] = w * h * area

    return plant


def set_run_lengths(counts: list[int], size: list[int]) -> Plant:
    def plant(sound: SoundSet) -> None:
        sound.annotations()[0]["segmentation"] = {"counts": counts, "size": size}

    return plant


def areas_of_boxes(sound: SoundSet) -> None:
    for one in sound.annotations():
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x, y + h]]
        one["area"] = w * h


LAST = {"train": "012.png", "val": "022.png"}

PLANTS: dict[str, tuple[Plant, str]] = {
    "box_beyond_image": (set_first(bbox=[85, 5, 20, 20]), FIRST),
    "duplicate_box": (repeat_first(shift=0.5), FIRST),
    "same_box_other_class": (repeat_first(category_id=2), FIRST),
    "whole_image_box": (set_first(bbox=[0, 0, WIDTH, HEIGHT]), FIRST),
    "needle_box": (set_first(bbox=[1, 1, 1.5, 50]), FIRST),
    "subpixel_box": (set_first(bbox=[1, 1, 0.5, 10]), FIRST),
    "corners_as_sizes": (set_boxes(lambda x, y, w, h: [x, y, x + w, y + h]), "train"),
    "centers_as_corners": (
        set_boxes(lambda _x, y, w, h: [WIDTH - 1 - w / 2, y + h / 2, w, h]),
        "train",
    ),
    "swapped_axes": (set_boxes(lambda x, y, w, h: [y, x, h, w]), "train"),
    "fractions_as_pixels": (set_boxes(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]), "train"),
    "percentages_as_pixels": (
        upsample(lambda x, y, w, h: [x / WIDTH * 100, y / HEIGHT * 100, w / WIDTH * 100, h / HEIGHT * 100]),
        "train",
    ),
    "boxes_of_stated_size": (halve_images, "train"),
    "boxes_of_other_size": (set_boxes(lambda x, y, w, h: [2.5 * x, 2.5 * y, 2.5 * w, 2.5 * h]), "train"),
    "many_beyond_image": (move_boxes(8), "train"),
    "stray_form": (corners_in_first_images(4), "train"),
    "area_by_size": (set_first(area=-200), FIRST),
    "zero_area": (set_first(area=0), FIRST),
    "constant_area": (set_all("area", 100), "train"),
    "area_beyond_box": (set_first(area=9000), FIRST),
    "area_below_box": (set_first(area=0.5), FIRST),
    "no_objects": (lambda sound: sound.annotations("val").clear(), "val"),
    "only_crowds": (set_all("iscrowd", 1, "val"), "val"),
    "rare_class": (drop_objects("train", 2, keep=9), "screw"),
    "imbalance": (imbalance, "train"),
    "similar_class_names": (rename_class(2, "Cells"), "'cell' / 'Cells'"),
    "odd_class_name": (rename_class(2, "2"), "'2'"),
    "empty_image": (add_empty_images(1), "013.png"),
    "mostly_empty": (add_empty_images(6), "val"),
    "crowded_image": (crowd_image, FIRST),
    "unknown_class": (new_category("val", 4, "gear", use=True), "gear"),
    "class_not_in_train": (drop_objects("train", 2), "screw"),
    "class_not_in_val": (drop_objects("val", 2), "screw"),
    "unused_class": (in_every_split(lambda split: new_category(split, 4, "gear")), "gear"),
    "class_numbers_differ": (renumber_val, "cell"),
    "class_lists_differ": (new_category("val", 4, "gear"), "gear"),
    "frequency_shift": (frequency_shift, "cell"),
    "size_shift": (size_shift, "val"),
    "empty_box": (set_first(bbox=[200, 5, 20, 20]), FIRST),
    "size_disagrees": (lambda sound: sound.images()[0].update(width=WIDTH - 8), FIRST),
    "split_unreadable": (lambda sound: sound.documents["val"].pop("images"), "val"),
    "image_missing": (change_file(Path.unlink), FIRST),
    "image_unreadable": (change_file(flip_byte), FIRST),
    "image_cut": (change_file(cut_jpeg), FIRST),
    "image_turned": (change_file(save_turned), FIRST),
    "image_gray": (change_pixels(lambda image: image.convert("L")), FIRST),
    "image_range": (change_file(save_16_bits), FIRST),
    "tiny_image": (resize_image(60, 30), FIRST),
    "long_image": (resize_image(400, 40), FIRST),
    "blank_image": (change_pixels(lambda image: Image.new("RGB", image.size, (90, 90, 92))), FIRST),
    "file_listed_twice": (list_again, FIRST),
    "same_bytes": (repeat_image("train", lambda image: image), LAST["train"]),
    "same_bytes_in_splits": (repeat_image("val", lambda image: image), LAST["val"]),
    "near_image": (repeat_image("train", brighten), LAST["train"]),
    "near_image_in_splits": (repeat_image("val", brighten), LAST["val"]),
    "twin_split": (copy_split("val", "val_exact"), "val_exact"),
    "twin_of_train": (copy_split("train", "train_eval"), "train_eval"),
    "unlisted_image": (change_file(lambda path: path.with_name("new.png").write_bytes(path.read_bytes())), "new.png"),
    "same_file_in_splits": (use_file_of_train, FIRST),
    "no_val_split": (rename_split("val", "test"), "only train, test"),
    "no_train_split": (rename_split("train", "test"), "only val, test"),
    "tiny_split": (cut_split, "val"),
}
"""Kind of finding, the fault, and its place."""

MASK_PLANTS: dict[str, tuple[Plant, str]] = {
    "short_polygon": (set_polygon(1, 1, 5, 5), FIRST),
    "flat_polygon": (in_first_box(lambda x1, y1, x2, y2: [x1, y1, x2, y2, (x1 + x2) / 2, (y1 + y2) / 2]), FIRST),
    "self_crossing_polygon": (in_first_box(lambda x1, y1, x2, y2: [x1, y1, x2, y2, x2, y1, x1, y2], area=0.05), FIRST),
    "empty_mask": (set_run_lengths([HEIGHT * WIDTH], [HEIGHT, WIDTH]), FIRST),
    "mask_of_other_size": (set_run_lengths([0, 100], [10, 10]), FIRST),
    "broken_mask": (set_run_lengths([0, 100], [HEIGHT, WIDTH]), FIRST),
    "mask_beside_box": (
        in_first_box(lambda x1, y1, _, y2: [x1, y1, x1 + 4, y1, x1 + 4, y2, x1, y2], area=0.3),
        FIRST,
    ),
    "area_beside_mask": (lambda sound: sound.annotations()[0].update(area=45), FIRST),
    "area_of_box": (areas_of_boxes, "train"),
    "some_without_mask": (lambda sound: sound.annotations()[0].pop("segmentation"), FIRST),
}
"""The same for a data set with masks."""

TOGETHER = {
    "imbalance": {"rare_class"},
    "mostly_empty": {"empty_image"},
    "image_range": {"image_gray"},
    "image_missing": {"rare_class"},
    "split_unreadable": {"no_val_split"},
    "swapped_axes": {"rare_class", "empty_box"},  # some of them lie outside of their image, and are dropped
    "boxes_of_other_size": {"class_not_in_train", "rare_class", "empty_box"},
    "boxes_of_stated_size": {"class_not_in_train", "size_disagrees", "empty_box"},
    "many_beyond_image": {"box_beyond_image"},
    "stray_form": {"box_beyond_image"},
}
"""Kinds that come with another one, as a consequence."""


def kinds_of(folder: Path) -> dict[str, set[str]]:
    """Places of the findings of each kind."""
    names: dict[str, set[str]] = {}
    for _, finding in check(folder).findings:
        names.setdefault(finding.kind.name, set()).add(finding.subject)
    return names


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_is_found_in_a_sound_set(tmp_path: Path, masks: bool) -> None:
    assert kinds_of(SoundSet(tmp_path / "set", masks=masks).write()) == {}


@pytest.mark.parametrize("kind", [*PLANTS, *MASK_PLANTS])
def test_a_planted_fault_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    plant, name = (PLANTS | MASK_PLANTS)[kind]
    sound = SoundSet(tmp_path / "set", masks=kind in MASK_PLANTS)
    plant(sound)
    names = kinds_of(sound.write())
    assert name in names.get(kind, set())
    assert names.keys() - TOGETHER.get(kind, set()) == {kind}
