"""Exported files that are made by hand in milliseconds: the form of real ones, around a model of a few nodes.

The model finds the image with its mean brightness as score, and a quarter of it with half the score; nothing in a black
image. A third row fills up. Masks are disks, in boxes that reach a little further than those that were cut.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.metadata import METADATA_KEY, Metadata
from boxwright_runtime.sessions import keep_core
from boxwright_runtime.structures import Category

CATEGORIES = (Category(7, "thing"), Category(3, "quarter"))

OUTSIDE = (-2, -1, 1, 2)
"""Differences of the boxes that masks are pasted over from the others, in pixels."""

INPUTS = {"bytes": "uint8[b, height, width, 3] images", "float": "float[b, 3, h, w] images, int64[b, 4] sizes"}

BEGINNING = {
    # Bytes: the size of every image is that of the array.
    "bytes": """
        floats = Cast <to = 1> (images)
        levels = ReduceMean <keepdims = 0> (floats, image_axes)
        score = Div (levels, white)
        shape = Shape (images)
        width_height = Gather (shape, width_height_of_shape)
        zeros = Sub (levels, levels)
        zeros_of_boxes = Unsqueeze (zeros, second_third)
        sides = Cast <to = 1> (width_height)
        sides_of_images = Add (sides, zeros_of_boxes)
        """,
    "float": """
        score = ReduceMean <keepdims = 0> (images, image_axes)
        sides = Gather <axis = 1> (sizes, width_height_of_sizes)
        floats_of_sides = Cast <to = 1> (sides)
        sides_of_images = Unsqueeze (floats_of_sides, second)
        """,
}

REST = """
        boxes = Mul (sides_of_images, fractions)
        score_column = Unsqueeze (score, second)
        scores = Mul (score_column, parts)
        is_bright = Greater (score, zero)
        bright = Cast <to = 7> (is_bright)
        count = Mul (bright, two)
        bright_column = Unsqueeze (bright, second)
        labels = Mul (bright_column, classes)
        """

MASKS = """
        mask_boxes = Add (boxes, outside)
        score_of_masks = Unsqueeze (scores, third_fourth)
        zeros_of_masks = Mul (score_of_masks, zero)
        masks = Add (zeros_of_masks, disk)
        """


def make_disk() -> np.ndarray:
    """Probabilities of the cells of a mask."""
    steps = np.linspace(-1, 1, 28)
    return (1 / (1 + np.exp(8 * (steps[:, None] ** 2 + steps**2 - 0.8)))).astype(np.float32)


def make_metadata(**options: Any) -> Metadata:
    """Metadata of a stand-in, of which everything may be another."""
    defaults: dict[str, Any] = {
        "version": "0.3.0",
        "task": "detection",
        "categories": CATEGORIES,
        "input_format": InputFormat(image_size=32, resize="shortest_side", max_size=64),
    }
    return Metadata(**(defaults | options))


def make_model(metadata: Metadata) -> onnx.ModelProto:
    """A model of the profile of some metadata, which are in it."""
    constants = {
        "fractions": np.array([[[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]]], dtype=np.float32),
        "parts": np.array([[1, 0.5, 0]], dtype=np.float32),
        "classes": np.array([[0, 1, 0]]),
        "two": np.array(2),
        "zero": np.array(0, dtype=np.float32),
        "white": np.array(255, dtype=np.float32),
        "image_axes": np.array([1, 2, 3]),
        "width_height_of_shape": np.array([2, 1, 2, 1]),
        "width_height_of_sizes": np.array([1, 0, 1, 0]),
        "second": np.array([1]),
        "second_third": np.array([1, 2]),
        "third_fourth": np.array([2, 3]),
        "disk": make_disk()[None, None],
        "outside": np.array(OUTSIDE, dtype=np.float32),
    }
    outputs = "float[b, n, 4] boxes, float[b, n] scores, int64[b, n] labels, int64[b] count"
    if metadata.masks:
        outputs += ", float[b, n, 28, 28] masks, float[b, n, 4] mask_boxes"
    nodes = BEGINNING[metadata.profile] + REST + (MASKS if metadata.masks else "")
    text = f"stand_in ({INPUTS[metadata.profile]}) => ({outputs}) {{ {nodes} }}"
    graph = parser.parse_graph(text)
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in sorted(used & constants.keys()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    return model


def write_stand_in(path: Path, **options: Any) -> Path:
    """Write a stand-in with such metadata: an ONNX file, or one of OpenVINO where the name ends in .xml."""
    metadata = make_metadata(**options)
    model = make_model(metadata)
    if path.suffix == ".xml":
        import openvino

        converted = keep_core(openvino).read_model(model.SerializeToString())
        converted.set_rt_info(metadata.to_json(), METADATA_KEY)
        openvino.save_model(converted, path, compress_to_fp16=False)
    else:
        onnx.save(model, path)
    return path
