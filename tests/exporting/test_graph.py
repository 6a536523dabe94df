"""Exported graphs find what the detector finds, at every size that they claim."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.compose.detectors import build
from graph_checks import check_export

SMALL_QUERIES: dict[str, Any] = {
    "backbone.width": 8,
    "neck.hidden_dim": 16,
    "neck.num_heads": 2,
    "neck.feedforward_dim": 16,
    "head.hidden_dim": 16,
    "head.num_queries": 20,
    "head.max_detections": 30,
    "head.decoder.num_heads": 2,
    "head.decoder.num_layers": 2,
    "head.decoder.feedforward_dim": 16,
}

SMALL_DENSE: dict[str, Any] = {
    "backbone": {"name": "resnet", "depth": 18, "width": 8},
    "neck.out_channels": 16,
    "head.num_convs": 1,
    "head.detection.score_threshold": 0.0,
    "head.detection.pre_nms_top_k": 50,
    "head.detection.max_detections": 40,
}


@pytest.mark.parametrize("ops", ["auto", "plain"])
def test_rtdetr_of_squares_has_a_free_batch(ops: Any) -> None:
    detector = build("rtdetr_r18", num_classes=3, overrides={**SMALL_QUERIES, "image_size": 96})
    model = check_export(detector, [(96, 96)] * 3, ops=ops)
    operators = {node.op_type for node in model.graph.node}
    assert ("GridSample" in operators) == (ops == "auto")


def test_retinanet_has_a_free_batch_height_and_width() -> None:
    detector = build(
        "retinanet_r50_fpn", num_classes=3, overrides={**SMALL_DENSE, "image_size": 120, "input.max_size": 200}
    )
    model = check_export(detector, [(120, 133), (200, 139), (161, 194)])
    images, sizes = model.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    assert [d.dim_param or d.dim_value for d in sizes.type.tensor_type.shape.dim] == ["batch", 4]
    assert [value.name for value in model.graph.output] == ["boxes", "scores", "labels", "count"]
