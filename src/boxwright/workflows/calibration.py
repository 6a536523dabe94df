"""Images that conversions to other precisions are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.exporting.exercise import make_network_inputs
from boxwright.workflows.certify import choose_records
from boxwright_runtime.exported_file import read_exported_file

NUM_CALIBRATION_IMAGES = 100


def make_calibration(
    path: Path, detector: Detector, data: DetectionData, count: int = NUM_CALIBRATION_IMAGES
) -> list[Mapping[str, np.ndarray]]:
    """Read images of a split as inputs of a file, one image each.

    Args:
        path: of the file, whose metadata say what it takes.
        detector: that it came from.
        data: images like those to come, and not those that are measured on: the train split.
        count: images at most, evenly over the split.
    """
    takes_bytes = read_exported_file(path).metadata.profile == "bytes"
    inputs: list[Mapping[str, np.ndarray]] = []
    for record in choose_records(data, count):
        image = record.read()
        if takes_bytes:
            inputs.append({"images": image[None]})
        else:
            images, sizes = make_network_inputs(image[None], detector.input_format)
            inputs.append({"images": images, "sizes": sizes})
    return inputs
