"""Padding masks at the levels."""

from __future__ import annotations

import torch

from boxwright.layers.padding import crop_map, infer_valid_sizes, resize_mask, valid_ratio
from boxwright.ops.onnx_operators import tracing_for_onnx


def make_mask(height: int, width: int, sizes: list[tuple[int, int]]) -> torch.Tensor:
    mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for row, (h, w) in zip(mask, sizes, strict=True):
        row[:h, :w] = False
    return mask


def test_mask_at_a_level_keeps_the_cells_that_begin_in_the_image() -> None:
    mask = make_mask(64, 96, [(64, 96), (32, 48), (8, 96)])
    level = resize_mask(mask, 8, 12)
    assert (~level).sum((1, 2)).tolist() == [96, 4 * 6, 12]
    assert not level[1, :4, :6].any()
    assert level[1, 4:].all()
    assert level[1, :, 6:].all()


def test_a_cropped_map_is_the_same_in_a_graph_for_onnx() -> None:
    x = torch.arange(24.0).view(1, 1, 4, 6)
    cropped = crop_map(x, 3, 5)
    assert cropped.tolist() == [[[[*range(5)], [*range(6, 11)], [*range(12, 17)]]]]
    with tracing_for_onnx():
        assert torch.equal(crop_map(x, 3, 5), cropped)


def test_valid_ratio_is_x_first() -> None:
    ratio = valid_ratio(make_mask(8, 16, [(8, 16), (4, 4), (2, 16)]))
    assert ratio.tolist() == [[1.0, 1.0], [0.25, 0.5], [1.0, 0.25]]


def test_valid_sizes_are_read_off_the_mask_or_the_finest_map() -> None:
    finest = torch.zeros(2, 3, 8, 12)
    assert infer_valid_sizes(None, finest, 8).tolist() == [[64, 96]]
    mask = make_mask(60, 90, [(60, 90), (33, 61)])
    assert infer_valid_sizes(mask, finest, 8).tolist() == [[60, 90], [33, 61]]
