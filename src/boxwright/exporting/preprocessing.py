"""The graph from the bytes of images to the network input: resized and normalized as everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from boxwright.exporting.graph_writer import GraphWriter, Value
from boxwright.exporting.input_sizes import Sides, write_center_window, write_input_size
from boxwright.exporting.requirements import import_onnx
from boxwright_runtime.input_format import InputFormat, Resampling

if TYPE_CHECKING:
    import onnx

NODE_PREFIX = "preprocessing/"
"""Beginning of the names of all nodes and constants, so that converters to other precisions can leave them alone."""

IMAGES, NETWORK_INPUT, IMAGE_SIZES = "images", "network_input", "sizes"
"""Names of the input, and of the outputs, which are the network's inputs."""

_HALF = 0.500777
"""Added before bytes are cut: a little more than a half, which sums of simple weights often come to.

Runtimes add in an order of their own for each size of batches, and of images; halves would be rounded now up, now down.
Pixels in between are rounded up, as torch does, and what lies just below has no simple weights.
"""

_OPENCV_CUT = 0.12
"""Gray levels that OpenCV's bytes are below the exact ones in the mean, but for images that are halved; see there."""


def preprocessing_graph(input_format: InputFormat) -> onnx.ModelProto:
    """Write the graph that does what ``resample`` and ``normalize`` of ``data.images`` do.

    Its input ``images`` is uint8 (b, height, width, 3), RGB, images of one size. Its outputs are ``network_input``,
    float32 (b, 3, h, w), not padded, and ``sizes``, int64 (b, 4): the ``ImageSize`` of each image.

    Pixels are at most one gray level from those of ``resample``: bytes are rounded once, after both directions, and
    not after each, and OpenCV's cut sums are cut in the mean. Sizes are equal for
    images of up to 32,768 pixels a side.

    Raises:
        ValueError: onnx is not installed.
    """
    writer = GraphWriter(NODE_PREFIX)
    images = writer.value(IMAGES)
    shape = writer.add("Shape", images)
    height, width = (_dimension(shape, axis).to_float() for axis in (1, 2))
    input_size = write_input_size(height, width, input_format)
    _write_sizes(shape, (height, width), input_size)
    if input_format.resize == "center_crop":
        images, side = _write_crop(images, height, width)
        height = width = side
    pixels = _write_resize(images, (height, width), input_size, input_format.resampling)
    _write_normalize(pixels, input_format)
    return _finish(writer, input_format)


def _dimension(shape: Value, axis: int) -> Value:
    """Select one of the dimensions, as int64 (1, 1)."""
    return shape.writer.add("Gather", shape, shape.writer.constant([[axis]], np.int64), attributes={"axis": 0})


def _flat_int(value: Value) -> Value:
    """Convert (1, 1) to int64 (1)."""
    writer = value.writer
    return writer.add("Reshape", value.to_int(), writer.constant([1], np.int64))


def _write_sizes(shape: Value, size: Sides, input_size: Sides) -> None:
    writer = shape.writer
    row = writer.concat([*size, *input_size], axis=1).to_int()
    batch = writer.add("Gather", shape, writer.constant([0], np.int64), attributes={"axis": 0})
    rows = writer.concat([batch, writer.constant([1], np.int64)])
    writer.add("Expand", row, rows, output=IMAGE_SIZES)


def _write_crop(images: Value, height: Value, width: Value) -> tuple[Value, Value]:
    """Cut out the central square; return it and its side."""
    writer = images.writer
    top, left, side = write_center_window(height, width)
    start = writer.concat([_flat_int(top), _flat_int(left)])
    end = writer.concat([_flat_int(top + side), _flat_int(left + side)])
    return writer.add("Slice", images, start, end, writer.constant([1, 2], np.int64)), side


def _write_resize(images: Value, size: Sides, input_size: Sides, resampling: Resampling) -> Value:
    """Resize channels-last images, which is the fastest, in floats, which all runtimes can."""
    writer = images.writer
    # Weights of pixels outside the image are 0, and the others add up to 1: else borders are up to 21 levels off.
    outside = {"antialias": 1, "exclude_outside": 1} if resampling.antialias else {}
    resized = writer.add(
        "Resize",
        images.to_float(),
        None,
        None,
        writer.concat([_flat_int(side) for side in input_size]),
        attributes={"mode": "linear", "coordinate_transformation_mode": "half_pixel", "axes": [1, 2], **outside},
    )
    if resampling.floats:
        return resized
    if resampling.antialias:
        return (resized + _HALF).floor()
    is_halved = size[0].equals(input_size[0] * 2) & size[1].equals(input_size[1] * 2)
    return (resized + writer.where(is_halved, 0.5, 0.5 - _OPENCV_CUT)).floor()


def _write_normalize(pixels: Value, input_format: InputFormat) -> None:
    """Normalize by one factor and one summand per channel: ``(x / 255 - mean) / std``."""
    writer = pixels.writer
    order = slice(None, None, -1 if input_format.channel_order == "bgr" else 1)
    mean, std = (np.array(values)[order, None, None] for values in (input_format.mean, input_format.std))
    planes = writer.add("Transpose", pixels, attributes={"perm": [0, 3, 1, 2]})
    if input_format.channel_order == "bgr":
        planes = writer.add("Gather", planes, writer.constant([2, 1, 0], np.int64), attributes={"axis": 1})
    if any(input_format.mean):
        planes = planes * writer.constant(1 / (255 * std))
        writer.add("Add", planes, writer.constant(-mean / std), output=NETWORK_INPUT)
    else:
        writer.add("Mul", planes, writer.constant(1 / (255 * std)), output=NETWORK_INPUT)


def _finish(writer: GraphWriter, input_format: InputFormat) -> onnx.ModelProto:
    onnx = import_onnx()
    info, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    has_one_size = input_format.resize in ("square", "center_crop")
    size = [input_format.image_size] * 2 if has_one_size else ["input_height", "input_width"]
    return writer.finish(
        "preprocessing",
        [info(IMAGES, kinds.UINT8, ["batch", "height", "width", 3])],
        [info(NETWORK_INPUT, kinds.FLOAT, ["batch", 3, *size]), info(IMAGE_SIZES, kinds.INT64, ["batch", 4])],
    )
