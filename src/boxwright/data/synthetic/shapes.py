"""Drawn data sets: textured scenes of shapes in COCO format, for the demo and first experiments."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from boxwright.data.synthetic.scenes import CLASSES, MOST_SHAPES, paint_scene

MARKER = "drawn_set.json"
"""Name of the file that marks a drawn set, with its parameters and a flag for a complete one."""

EMPTY_FRACTION = 0.05
SMALLEST_IMAGE_SIZE = 64

_FORMAT = 2  # goes up whenever the images or files of a given seed change, so that old sets are drawn anew
_IMAGE_NAME = re.compile(r"(train|val)_\d{5,}\.jpg")


def draw_data_set(
    out: Path, *, train: int = 400, val: int = 100, image_size: int = 256, seed: int = 0
) -> dict[str, Path]:
    """Draw images of shapes with boxes and masks, or leave a folder as it is that holds exactly this set already.

    The classes are ``scenes.CLASSES``; color, texture, size, rotation and outline say nothing about the
    class. Shapes overlap, with two thirds of each visible. About one image in twenty has no object. The
    layout is ``annotations/{train,val}.json`` and ``images/*.jpg``; segmentations are uncompressed run
    lengths of the visible pixels, boxes and areas are those of the same pixels. An image depends on the
    seed, its split and its number alone, and the same seed gives the same bytes.

    Args:
        out: a folder that does not exist, is empty, or holds a drawn set, which is then replaced.
        train: number of images to train on.
        val: number of images held out.
        image_size: longest side that an image can have, in pixels; each side is at least three quarters of
            it.
        seed: of everything that is drawn.

    Returns:
        The annotation file of each split.

    Raises:
        ValueError: a number is out of range, or ``out`` holds files that are not a drawn set.
    """
    if min(train, val) < 1:
        raise ValueError(f"a drawn set needs at least one image per split, got train={train}, val={val}")
    if image_size < SMALLEST_IMAGE_SIZE:
        raise ValueError(f"image_size must be at least {SMALLEST_IMAGE_SIZE} pixels, got {image_size}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    files = {split: out / "annotations" / f"{split}.json" for split in ("train", "val")}
    order = {"format": _FORMAT, "train": train, "val": val, "image_size": image_size, "seed": seed}
    existing = _read_marker(out)
    if existing == {**order, "complete": True} and all(file.is_file() for file in files.values()):
        return files

    for folder in ("annotations", "images"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    _write_json(out / MARKER, {**order, "complete": False})
    _remove_images(out / "images")
    for number, (split, size) in enumerate((("train", train), ("val", val))):
        _write_json(files[split], _draw_split(out / "images", split, size, image_size, [seed, number]))
    _write_json(out / MARKER, {**order, "complete": True})
    return files


def is_drawn(out: Path, *, train: int, val: int, image_size: int, seed: int) -> bool:
    """Tell whether a folder holds exactly this drawn set, whole; see ``draw_data_set``."""
    order = {"format": _FORMAT, "train": train, "val": val, "image_size": image_size, "seed": seed, "complete": True}
    return (out / MARKER).is_file() and _read_marker(out) == order


def encode_run_lengths(mask: Bool[np.ndarray, "h w"]) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run lengths: column by column, starting with the run of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def _read_marker(out: Path) -> dict[str, Any] | None:
    """Return the parameters of the drawn set in ``out``; None where there is nothing at all."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the drawn set")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        content = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{out} is not empty and was not drawn by boxwright: name another folder for the drawn set")
    return content


def _remove_images(images: Path) -> None:
    """Remove the images of an earlier set by their names, and no other file."""
    for file in images.iterdir():
        if _IMAGE_NAME.fullmatch(file.name):
            file.unlink()


def _image_name(split: str, number: int) -> str:
    return f"{split}_{number:05d}.jpg"


def _draw_split(images: Path, split: str, size: int, image_size: int, seed: list[int]) -> dict[str, Any]:
    """Draw one split's images into ``images``; return the content of its annotation file."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(size):
        rng = np.random.default_rng([*seed, number])
        height, width = (round(image_size * rng.uniform(0.75, 1.0)) for _ in range(2))
        num_shapes = 0 if rng.random() < EMPTY_FRACTION else int(rng.integers(1, MOST_SHAPES + 1))
        scene = paint_scene(rng, height, width, num_shapes)
        name = _image_name(split, number)
        Image.fromarray(scene.image).save(images / name, quality=92)
        image_id = number + 1
        rows.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for label, mask in scene.shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    **_describe(mask),
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    return {"images": rows, "annotations": annotations, "categories": categories}


def _describe(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": encode_run_lengths(mask),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write in one step, so that no reader ever sees half a file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(partial, path)
