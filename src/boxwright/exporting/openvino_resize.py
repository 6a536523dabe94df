"""Resizing for OpenVINO as products of matrices: its own compiles code anew for each size of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boxwright.exporting.openvino_writer import OpenVinoWriter

if TYPE_CHECKING:
    import openvino

_BLOCK = 32
"""Rows of the output that are made together, of the few rows of the input that they average over.

Fewer make thin products, and of more there are more weights that are 0. From 16 to 64 all take equally long.
"""


def write_resize(package: Any, images: Any, size: Any, *, prefix: str) -> openvino.Node:
    """Write the antialiased bilinear resizing of images, as Pillow's; compiled once for all sizes.

    Each side is a product with the weights of a triangular filter. Nearly all of these are 0, so blocks of rows are
    multiplied with the rows that they need. OpenVINO's ``bilinear_pillow`` does the same, but compiles it at the first
    image of every size, which takes seconds.

    Args:
        package: OpenVINO.
        images: an output (b, height, width, channels), of bytes or floats.
        size: an output: height and width of the result, int64.
        prefix: of the new nodes' names.

    Returns:
        a node, float32 (b, height, width, channels).
    """
    writer = OpenVinoWriter(package, prefix)
    shape = writer.shape_of(images)
    _, height, width, channels = (writer.pick(shape, axis) for axis in range(4))
    new_height, new_width = (writer.pick(size, axis) for axis in range(2))
    rows = writer.reshape(images, [0, 0, -1])
    rows = _resize_rows(writer, rows, height, new_height)
    columns = writer.swap(writer.reshape(rows, [0, 0, width, channels]))
    columns = writer.reshape(columns, [0, 0, -1])
    columns = _resize_rows(writer, columns, width, new_width)
    return writer.swap(writer.reshape(columns, [0, 0, new_height, channels]))


def _resize_rows(write: OpenVinoWriter, rows: Any, old: Any, new: Any) -> Any:
    """Resize (b, old, m) to (b, new, m), of float32; ``old`` and ``new`` are nodes (1), int64."""
    num_blocks = write.divide_up(new, write.whole([_BLOCK]))
    positions, weights = _write_weights(write, old, new, num_blocks)
    last = write("subtract", old, write.whole([1]))
    indices = write("minimum", write("maximum", positions, write.whole(0)), last)
    read = write("convert", write("gather", rows, indices, write.whole(1)), "f32")
    length = write.pick(write.shape_of(rows), 2)
    blocks = write.reshape(write("matmul", weights, read, False, False), [0, -1, length])
    return write("slice", blocks, write.whole([0]), new, write.whole([1]), write.whole([1]))


def _write_weights(write: OpenVinoWriter, old: Any, new: Any, num_blocks: Any) -> tuple[Any, Any]:
    """Return the rows that each block reads, (blocks, n), and their weights in each of its rows, (1, blocks, 32, n).

    Rows that lie outside of the image have no weight.

    Distances are whole numbers, in units of 1 / (2 new) of a row. For where OpenVINO computes in bfloat16, it replaces
    some nodes, quotients and the newer softmax among them, by others that have forgotten to stay in float32; whole
    numbers it leaves alone. Its quotients of these may be one off, so each block reads one more row at both ends.
    """
    block, two = write.whole([_BLOCK]), write.whole([2])
    reach = write("add", write.divide_up(old, new), two)
    starts = write("divide", write("multiply", write("multiply", write.count_up(num_blocks), block), old), new)
    starts = write.reshape(write("subtract", starts, reach), [-1, 1])
    num_read = write("add", write.divide_up(write("multiply", block, old), new), write("multiply", reach, two))
    positions = write("add", starts, write.count_up(num_read))
    rows = write.reshape(write.count_up(write("multiply", num_blocks, block)), [1, -1, _BLOCK, 1])
    columns = write("unsqueeze", positions, write.whole([0, 2]))
    distances = write("subtract", _scaled_middles(write, columns, new), _scaled_middles(write, rows, old))
    distances = write("maximum", distances, write("multiply", distances, write.whole(-1)))
    support = write("multiply", write("maximum", old, new), two)
    weights = write("maximum", write("subtract", support, distances), write.whole(0))
    inside = write("logical_and", write("greater_equal", columns, write.whole(0)), write("less", columns, old))
    weights = write("select", inside, weights, write.whole(0))
    # Divided by their sum. Rows of the last block that are cut off may have none, and are not numbers then.
    logs = write("log", write("convert", weights, "f32"))
    return positions, write.named(write.package.opset1.softmax(logs, 3), "softmax")


def _scaled_middles(write: OpenVinoWriter, rows: Any, factor: Any) -> Any:
    """Return the middles of rows times twice a factor."""
    return write("multiply", write("add", write("multiply", rows, write.whole(2)), write.whole(1)), factor)
