"""Exported graphs in onnxruntime against the detector that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.data.images import normalize, pad_inputs
from boxwright.detector import Detector
from boxwright.exporting.graph import export_network
from boxwright.ops.onnx_operators import Operators
from boxwright.structures import ImageSize
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat
from random_weights import settle, shake

Arrays = dict[str, np.ndarray[Any, Any]]


class Difference(NamedTuple):
    """The largest differences of matched detections: of boxes in their longest sides, of scores, of masks."""

    box: float
    score: float
    mask: float


def start(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Load a graph into onnxruntime."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: Tensor, sizes: Tensor) -> Arrays:
    """Run a graph; outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()}), strict=True))


def make_inputs(input_format: InputFormat, size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Make network inputs of one input size, of original images of other sizes."""
    height, width = size
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    pixels = (F.interpolate(coarse, size=size, mode="bilinear") * 255).round().to(torch.uint8)
    originals = [
        (2 * height + (0 if input_format.resize == "letterbox" else image), 2 * width - image) for image in range(count)
    ]
    return normalize(pixels, input_format), torch.tensor([(*original, height, width) for original in originals])


@torch.no_grad()
def detect(detector: Detector, images: Tensor, sizes: Tensor) -> list[Detections]:
    """Detect as ``Detector.predict_batch``, in images that are normalized already."""
    input_size = images.shape[-2], images.shape[-1]
    padded_size, padding_mask = detector.input_format.padded_size(*input_size), None
    if padded_size != input_size:
        images, padding_mask = pad_inputs(list(images), *padded_size, detector.input_format)
    return detector.eval().postprocess(detector(images, padding_mask), [ImageSize(*size) for size in sizes.tolist()])


def compare(expected: Sequence[Detections], outputs: Arrays) -> Difference:
    """Match the detections of each image one to one, and check the form of what the file gives."""
    worst = [0.0, 0.0, 0.0]
    for image, ours in enumerate(expected):
        count = int(outputs["count"][image])
        assert count == len(ours)
        boxes, scores, labels = (outputs[name][image] for name in ("boxes", "scores", "labels"))
        assert not boxes[count:].any()
        assert not scores[count:].any()
        assert not labels[count:].any()
        assert (np.diff(scores[:count]) <= 0).all(), "the best come first"
        free = np.ones(count, dtype=bool)
        for box, score, label in zip(ours.boxes.numpy(), ours.scores.numpy(), ours.labels.numpy(), strict=True):
            distance = np.abs(boxes[:count] - box).max(1) / max(1.0, (box[2:] - box[:2]).max())
            alike = free & (labels[:count] == label) & (np.abs(scores[:count] - score) < 1e-2)
            nearest = int(np.where(alike, distance, np.inf).argmin())
            assert alike[nearest], f"nothing like {label} {box} with {score} in image {image}"
            assert distance[nearest] < 1e-2, f"nothing near {label} {box} with {score} in image {image}"
            free[nearest] = False
            worst[0] = max(worst[0], float(distance[nearest]))
            worst[1] = max(worst[1], abs(float(scores[nearest] - score)))
    return Difference(*worst)


def check_export(
    detector: Detector, shapes: Sequence[tuple[int, int]], *, ops: Operators = "auto", explain: bool = False
) -> onnx.ModelProto:
    """Export a detector with weights that are far from special; run it on batches of 1, 2 and 5, and compare."""
    shake(detector)
    settle(detector, make_inputs(detector.input_format, detector.input_format.padded_size(*shapes[0]), 2)[0])
    model = export_network(detector, ops=ops)
    session = start(model)
    for count, shape in zip((1, 2, 5), shapes, strict=True):
        images, sizes = make_inputs(detector.input_format, shape, count)
        expected = detect(detector, images, sizes)
        assert sum(map(len, expected)), "nothing is detected, so nothing is compared"
        difference = compare(expected, run(session, images, sizes))
        if explain:
            print(f"{count} x {shape}: {sum(map(len, expected))} detections, {difference}")
        assert difference.box < 1e-3, difference
        assert difference.score < 1e-4, difference
    return model
