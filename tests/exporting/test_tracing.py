"""Graphs of free sizes are traced in the time that a fixed size takes."""

from __future__ import annotations

from itertools import product

import pytest
from timm.layers import padding

from boxwright.compose.detectors import build
from boxwright.exporting.graph import export_network
from boxwright.exporting.tracing import compute_same_padding, whole_number_padding


def test_padding_is_timms() -> None:
    for size, kernel_size, stride, dilation in product((1, 2, 5, 8, 31, 64), (1, 2, 3, 5), (1, 2, 3, 4), (1, 2)):
        expected = padding.get_same_padding(size, kernel_size, stride, dilation)
        assert compute_same_padding(size, kernel_size, stride, dilation) == expected


def test_timm_keeps_its_own() -> None:
    before = padding.get_same_padding
    with whole_number_padding():
        assert padding.get_same_padding is compute_same_padding
    assert padding.get_same_padding is before


@pytest.mark.slow
def test_efficientdet_of_free_sizes_is_traced() -> None:
    """Nested formulas of sizes would take hours here."""
    model = export_network(build("efficientdet_d0", num_classes=3, overrides={"neck.repeats": 1, "head.num_convs": 1}))
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", 3, "height", "width"]
