"""Summary metrics, and the primary one."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.training.measures import primary_metric, summary_metrics

BOXES = {"AP": 0.3, "AP50": 0.5, "AP75": 0.2}


@pytest.mark.parametrize(
    ("metrics", "shown", "decides"),
    [
        (BOXES, {"AP": 0.3, "AP50": 0.5}, ("AP", 0.3)),
        (
            {**BOXES, "segm": {"AP": 0.1, "AP50": 0.4}},
            {"AP": 0.3, "AP50": 0.5, "mask AP": 0.1, "mask AP50": 0.4},
            ("mask AP", 0.1),
        ),
        ({"top1": 0.7, "top5": 0.9, "num_images": 3}, {"top-1": 0.7, "top-5": 0.9}, ("top-1", 0.7)),
    ],
)
def test_of_boxes_masks_and_classes(
    metrics: dict[str, Any], shown: dict[str, float], decides: tuple[str, float]
) -> None:
    assert summary_metrics(metrics) == shown
    assert primary_metric(metrics) == decides
