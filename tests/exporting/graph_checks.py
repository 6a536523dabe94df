"""Exported graphs in their runtimes against the detector that they come from."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from runtimes import RUNTIMES, start
from torch import Tensor

from boxwright.data.images import normalize
from boxwright.detector import Detector
from boxwright.exporting.comparison import DetectionAgreement, Tolerance, compare_images, detect_on_inputs, read_outputs
from boxwright.exporting.graph import export_network
from boxwright.ops.onnx_operators import Operators
from boxwright_runtime.input_format import InputFormat
from random_weights import settle, shake

STRICT = Tolerance(box=1e-3, score=1e-4, mask=1e-3, fraction=0.01)

SQUARE = InputFormat(image_size=96)
LETTERBOX = InputFormat(image_size=96, resize="letterbox", mean=(0.4, 0.5, 0.3))
SHORTEST_SIDE = InputFormat(image_size=120, resize="shortest_side", max_size=200)
PADDED = InputFormat(image_size=120, resize="shortest_side", max_size=200, pad_multiple=32)

SHAPES = {
    "square": [(96, 96)] * 3,
    "letterbox": [(64, 96), (96, 71), (96, 96)],
    "shortest_side": [(120, 133), (200, 139), (40, 200)],
}
"""Three (height, width) of network inputs of each way to resize; the last one is lower than the coarsest cells."""


def make_inputs(input_format: InputFormat, size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Make network inputs of one input size, of original images of twice that size, more or less."""
    height, width = size
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    pixels = (F.interpolate(coarse, size=size, mode="bilinear") * 255).round().to(torch.uint8)
    originals = [(2 * height + image % 2, 2 * width - image % 2) for image in range(count)]
    return normalize(pixels, input_format), torch.tensor([(*original, height, width) for original in originals])


def check_export(detector: Detector, *, ops: Operators = "auto", shaken: bool = False) -> onnx.ModelProto:
    """Export a detector with weights that are far from special; compare batches of 1, 2 and 5 in each runtime."""
    input_format = detector.input_format
    shapes = SHAPES[input_format.resize]
    if not shaken:
        shake(detector)
    settle(detector, make_inputs(input_format, input_format.padded_size(*shapes[0]), 2)[0])
    model = export_network(detector, ops=ops)
    onnx.checker.check_model(model, full_check=True)
    for runtime in RUNTIMES:
        agreement, run = DetectionAgreement(), start(model, runtime)
        for count, shape in zip((1, 2, 5), shapes, strict=True):
            images, sizes = make_inputs(input_format, shape, count)
            expected = detect_on_inputs(detector, images, sizes)
            assert any(len(rows.scores) for rows in expected), "nothing is detected, so nothing is compared"
            outputs = run({"images": images.numpy(), "sizes": sizes.numpy()})
            agreement += compare_images(expected, read_outputs(outputs), STRICT)
        print(f"{runtime}: {agreement.describe()}")
        assert agreement.is_within(STRICT), f"{runtime}: {agreement.describe()}"
    return model
