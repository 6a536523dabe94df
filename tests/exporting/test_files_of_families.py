"""Files from bytes to boxes, of every family and in both runtimes, agree with the detector on images of any shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graph_checks import SHAPES, STRICT, make_inputs
from test_exported_parts import HEADS, NUM_CLASSES

from boxwright.exporting.exercise import ImageBatch, choose_batches, exercise
from boxwright.exporting.export_file import build_graph, describe_detector, write_model
from part_checks import composed
from random_weights import settle, shake

EXTREME = (ImageBatch(1, 20, 700), ImageBatch(2, 600, 31), ImageBatch(1, 3, 5))
"""Images whose network inputs are smaller than the coarsest stride, or consist of a few pixels."""


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_files_agree_from_bytes_to_boxes(head: str, tmp_path: Path) -> None:
    backbone, necks, input_format = HEADS[head]
    torch.manual_seed(0)
    detector = composed(backbone, necks, head, NUM_CLASSES)
    detector.input_format = input_format
    shake(detector)
    settle(detector, make_inputs(input_format, input_format.padded_size(*SHAPES[input_format.resize][0]), 2)[0])
    model = build_graph(detector, profile="bytes", ops="auto")
    metadata = describe_detector(detector, profile="bytes", ops="auto")
    batches = (*choose_batches(input_format), *EXTREME)
    for name in ("model.onnx", "model.xml"):
        write_model(model, metadata, tmp_path / name)
        report = exercise(tmp_path / name, detector, batches=batches, tolerance=STRICT)
        print(name, report.describe())
        assert report.agreement.total > 0
