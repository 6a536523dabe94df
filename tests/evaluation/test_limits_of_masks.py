"""The number of detections that are counted reaches every metric: of boxes, of masks, from Python and by a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import boxwright
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.evaluate import evaluate_detector
from boxwright.ops.masks import encode_mask
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.workflows.evaluate import evaluate
from boxwright.workflows.validation import Validation
from boxwright_runtime.detections import Detections

ROWS, COLUMNS = 12, 15
SIDE = 8
COUNT = ROWS * COLUMNS
"""Objects of one class in the one image: more than COCO counts."""


def tile(index: int) -> list[float]:
    """Left, top, width and height of an object; masks are their boxes."""
    return [float(index % COLUMNS * SIDE), float(index // COLUMNS * SIDE), 6.0, 5.0]


def crowded() -> DetectionData:
    boxes = np.array([tile(i) for i in range(COUNT)])
    outlines = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in boxes.tolist()]
    record = Record(
        image_id=5,
        path=Path("x.png"),
        height=ROWS * SIDE,
        width=COLUMNS * SIDE,
        labels=np.zeros(COUNT, np.int64),
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(COUNT, bool),
        annotation_ids=tuple(range(1, COUNT + 1)),
        segmentations=tuple(outlines),
    )
    return DetectionData((record,), (Category(1, "cell"),), Path("val.json"))


class Perfect(nn.Module):
    """Finds every object exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor, padding_mask: Tensor | None) -> Tensor:
        del padding_mask
        return images

    def postprocess(self, output: Tensor, image_sizes: list[ImageSize]) -> list[Detections]:
        del output
        boxes = torch.tensor([tile(i) for i in range(COUNT)])
        boxes[:, 2:] += boxes[:, :2]
        masks = []
        for x1, y1, x2, y2 in boxes.int().tolist():
            mask = torch.zeros(ROWS * SIDE, COLUMNS * SIDE, dtype=torch.bool)
            mask[y1:y2, x1:x2] = True
            masks.append(encode_mask(mask))
        scores = torch.linspace(1, 0.5, COUNT)
        return [Detections(boxes, scores, torch.zeros(COUNT).long(), tuple(masks)) for _ in image_sizes]


def batches() -> list[Batch]:
    size = (ROWS * SIDE, COLUMNS * SIDE)
    targets = [Targets(torch.zeros(0).long(), torch.zeros(0, 4), size)]
    return [Batch(torch.zeros(1, 3, *size), None, targets, [ImageSize(*size, *size)], [5])]


@pytest.mark.parametrize("limit", [100, COUNT])
def test_as_many_masks_are_counted_as_boxes(limit: int) -> None:
    """And all of them where the limit says so: AP is 1 then, of both."""
    evaluation = evaluate_detector(Perfect(), batches(), crowded(), device=torch.device("cpu"), max_detections=limit)
    assert evaluation.masks is not None
    for metrics in (evaluation.boxes, evaluation.masks):
        assert metrics.max_detections == limit
        assert metrics.numbers()[f"AR{limit}"] == pytest.approx(limit / COUNT)
        assert (pytest.approx(1.0) == metrics.AP) == (limit == COUNT)


class _Stop(Exception):  # noqa: N818
    pass


def test_the_limit_of_a_validation_and_of_the_workflow_reaches_the_metrics(
    trained: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def stop(*_: Any, max_detections: int, **__: Any) -> None:
        counted.append(max_detections)
        raise _Stop

    monkeypatch.setattr("boxwright.workflows.validation.evaluate_detector", stop)
    with pytest.raises(_Stop):
        evaluate(trained, drawn, max_detections=250)
    detector, data = boxwright.load(trained), open_data(drawn, "val")
    with pytest.raises(_Stop):
        Validation(data, max_detections=130).measure(detector)
    with pytest.raises(_Stop):
        evaluate(trained, drawn)
    assert counted == [250, 130, 100]
