"""Detections as files that labeling tools import: tasks of Label Studio, and CVAT's XML for images."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.structures import Category
from boxwright_runtime.masks import decode_rle
from boxwright_runtime.structures import RLE


class Prelabel(NamedTuple):
    """An object that a model labels.

    ``box`` is (x1, y1, x2, y2) in pixels of the image. ``is_uncertain`` asks for a look.
    """

    category: Category
    box: tuple[float, float, float, float]
    score: float
    is_uncertain: bool
    mask: RLE | None = None


class LabeledFile(NamedTuple):
    """An image with what a model labels in it; ``height`` and ``width`` are its size in pixels."""

    path: Path
    name: str
    height: int
    width: int
    objects: Sequence[Prelabel]


def list_label_studio_tasks(images: Sequence[LabeledFile], root: Path, model: str) -> list[dict[str, Any]]:
    """List tasks for Label Studio, with predictions of rectangles.

    Their control is called ``label`` and their image ``image``, as in its template for object detection. Images are
    named as files of a local storage.

    Args:
        images: with their objects.
        root: folder of the local storage, ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``.
        model: a name for what made the predictions.

    Raises:
        ValueError: an image is outside of the root.
    """
    tasks = []
    for image in images:
        results = [_label_studio_result(image, index, one) for index, one in enumerate(image.objects)]
        score = min((one.score for one in image.objects), default=0.0)
        prediction = {"model_version": model, "score": score, "result": results}
        path = image.path.absolute()
        if not path.is_relative_to(root.absolute()):
            raise ValueError(f"{path} is outside of {root}, the folder that Label Studio reads; give one above all")
        inside = path.relative_to(root.absolute()).as_posix()
        tasks.append({"data": {"image": f"/data/local-files/?d={inside}"}, "predictions": [prediction]})
    return tasks


def _label_studio_result(image: LabeledFile, index: int, one: Prelabel) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    value = {
        "x": 100 * x1 / image.width,
        "y": 100 * y1 / image.height,
        "width": 100 * (x2 - x1) / image.width,
        "height": 100 * (y2 - y1) / image.height,
        "rotation": 0,
        "rectanglelabels": [one.category.name],
    }
    result: dict[str, Any] = {
        "id": str(index),
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": value,
        "score": one.score,
    }
    return result | ({"meta": {"text": ["uncertain"]}} if one.is_uncertain else {})


def write_label_studio(images: Sequence[LabeledFile], root: Path, model: str) -> str:
    """Write the text of a file of tasks; arguments and errors as of ``list_label_studio_tasks``."""
    return json.dumps(list_label_studio_tasks(images, root, model), indent=1) + "\n"


def write_cvat(images: Sequence[LabeledFile], categories: Sequence[Category]) -> str:
    """Write the text of a file in CVAT's format "CVAT for images 1.1", with boxes, or masks where there are any.

    Args:
        images: with their objects.
        categories: labels of the task, each with the attributes ``score`` and ``uncertain``.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for category in categories:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = category.name
        attributes = ET.SubElement(label, "attributes")
        for name, kind, default, values in (
            ("score", "text", "", ""),
            ("uncertain", "checkbox", "false", "false\ntrue"),
        ):
            attribute = ET.SubElement(attributes, "attribute")
            for tag, text in (("name", name), ("mutable", "False"), ("input_type", kind), ("default_value", default)):
                ET.SubElement(attribute, tag).text = text
            ET.SubElement(attribute, "values").text = values
    for index, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ET.SubElement(root, "image", {"id": str(index), "name": image.name, **size})
        for one in image.objects:
            _add_cvat_object(element, one)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_cvat_object(image: ET.Element, one: Prelabel) -> None:
    common = {"label": one.category.name, "source": "auto", "occluded": "0", "z_order": "0"}
    if one.mask is None:
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{side:.2f}" for side in one.box), strict=True))
        element = ET.SubElement(image, "box", {**common, **sides})
    else:
        element = ET.SubElement(image, "mask", {**common, **_cvat_mask(one.mask)})
    for name, value in (("score", f"{one.score:.4f}"), ("uncertain", "true" if one.is_uncertain else "false")):
        ET.SubElement(element, "attribute", {"name": name}).text = value


def _cvat_mask(mask: RLE) -> dict[str, str]:
    """Run lengths of the rows of a mask within the rectangle around it, background first."""
    pixels = decode_rle(mask)
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    top, left = (int(one[0]) if len(one) else 0 for one in (rows, columns))
    bottom, right = (int(one[-1]) + 1 if len(one) else 1 for one in (rows, columns))
    part = pixels[top:bottom, left:right].reshape(-1)
    ends = np.flatnonzero(np.diff(part)) + 1
    runs = np.diff(np.concatenate(([0], ends, [len(part)]))).tolist()
    counts = ", ".join(map(str, [0, *runs] if part[0] else runs))
    corner = {"left": str(left), "top": str(top), "width": str(right - left), "height": str(bottom - top)}
    return {"rle": counts, **corner}
