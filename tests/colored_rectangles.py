"""A data set that tiny detectors learn in seconds: red and blue rectangles on noise, two or three to an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import boxwright

COLORS = {"red": (220, 40, 40), "blue": (40, 40, 220)}

RECIPE: dict[str, Any] = {
    "backbone": {"name": "resnet", "depth": 18, "width": 8, "levels": ["c3", "c4", "c5"]},
    "neck": {"name": "fpn", "out_channels": 16, "extra_levels": 0},
    "head": {"name": "fcos"},
    "input": {"image_size": 64},
    "augment": {"photometric": 0, "zoom_out": 0, "iou_crop": 0},
    "train": {
        "steps": 120,
        "batch_size": 8,
        "lr": 0.005,
        "schedule": {"no_aug_fraction": 1.0, "evaluations": 1},
        "batches": {"multi_scale": 0},
        "runtime": {"device": "cpu", "precision": "float32"},
    },
}
"""Finds half of all that COCO's AP asks for, after ten seconds of training."""


def draw_rectangles(folder: Path, *, train: int, val: int, size: tuple[int, int] = (120, 160)) -> Path:
    """Draw images of this (height, width) in COCO's layout; return the folder."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for seed, (split, count) in enumerate({"train": train, "val": val}.items()):
        rng = np.random.default_rng(seed)
        content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 5 * i + 2, "name": name} for i, name in enumerate(COLORS)]
        for number in range(count):
            image, objects = _draw(rng, *size)
            name = f"{split}_{number}.png"
            Image.fromarray(image).save(folder / "images" / name)
            content["images"].append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
            for label, box in objects:
                row = {"id": len(content["annotations"]), "image_id": number, "category_id": 5 * label + 2}
                area = box[2] * box[3]
                content["annotations"].append({**row, "bbox": box, "area": area, "iscrowd": 0})
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


def train_on_rectangles(data: Path, out: Path) -> boxwright.Detector:
    """Train ``RECIPE``; the folder of the run is ``out``."""
    return boxwright.train(RECIPE, data, out=out).load()


def _draw(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Draw an image, and list labels and boxes (x, y, width, height)."""
    image = rng.integers(60, 180, (height, width, 3), dtype=np.uint8)
    third, objects = width // 3, []
    for column in rng.permutation(3)[: rng.integers(2, 4)].tolist():
        w, h = rng.integers(24, min(height, third) - 8, 2).tolist()
        x, y = column * third + int(rng.integers(third - w)), int(rng.integers(height - h))
        label = int(rng.integers(len(COLORS)))
        color = np.array(list(COLORS.values())[label])
        image[y : y + h, x : x + w] = color + rng.integers(-30, 30, (h, w, 3))
        objects.append((label, [x, y, w, h]))
    return image, objects
