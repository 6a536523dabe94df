"""Boxes as deltas from anchors, against torchvision's BoxCoder and by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from boxwright.ops.box_deltas import MAX_LOG_SCALE, decode_deltas, encode_deltas


def boxes(count: int = 50, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100 - 20
    return torch.cat((corner, corner + torch.rand(count, 2, generator=generator) * 80 + 1), 1)


def test_known_deltas() -> None:
    anchor = torch.tensor([[0.0, 0, 10, 20]])
    moved = torch.tensor([[5.0, 0, 15, 20]])  # half a width to the right
    grown = torch.tensor([[-5.0, 0, 15, 20]])  # twice as wide
    torch.testing.assert_close(encode_deltas(moved, anchor), torch.tensor([[0.5, 0, 0, 0]]))
    torch.testing.assert_close(encode_deltas(grown, anchor), torch.tensor([[0, 0, math.log(2), 0]]))


def test_equal_torchvisions() -> None:
    coder, targets, anchors = BoxCoder((1.0, 1.0, 1.0, 1.0)), boxes(), boxes(seed=1)
    deltas = encode_deltas(targets, anchors)
    torch.testing.assert_close(deltas, coder.encode_single(targets, anchors), rtol=0, atol=1e-5)
    torch.testing.assert_close(decode_deltas(deltas, anchors), targets, rtol=0, atol=1e-3)
    wild = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 4
    torch.testing.assert_close(decode_deltas(wild, anchors), coder.decode_single(wild, anchors), rtol=1e-5, atol=1e-3)


def test_weights_of_shifts_and_sides_are_torchvisions() -> None:
    """Both ways, and where sides reach their limit: it holds for the logarithm, whatever it is multiplied by."""
    coder, targets, anchors = BoxCoder((10.0, 10.0, 5.0, 5.0)), boxes(), boxes(seed=1)
    deltas = encode_deltas(targets, anchors, weights=(10.0, 5.0))
    torch.testing.assert_close(deltas, coder.encode_single(targets, anchors), rtol=0, atol=1e-4)
    torch.testing.assert_close(decode_deltas(deltas, anchors, weights=(10.0, 5.0)), targets, rtol=0, atol=1e-3)
    wild = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 20
    assert (wild[:, 2:] > 5 * MAX_LOG_SCALE).any()
    assert ((wild[:, 2:] > MAX_LOG_SCALE) & (wild[:, 2:] < 5 * MAX_LOG_SCALE)).any()
    decoded = decode_deltas(wild, anchors, weights=(10.0, 5.0))
    torch.testing.assert_close(decoded, coder.decode_single(wild, anchors), rtol=1e-5, atol=1e-3)


def test_no_side_becomes_infinite() -> None:
    anchor = torch.tensor([[-8.0, -8, 8, 8]])
    decoded = decode_deltas(torch.tensor([[0.0, 0, 1000, 1000]]), anchor)
    torch.testing.assert_close(decoded, torch.tensor([[-500.0, -500, 500, 500]]), rtol=1e-5, atol=0)
    decoded = decode_deltas(torch.tensor([[0.0, 0, 1000, 1000]]), anchor, max_log_scale=math.log(2))
    torch.testing.assert_close(decoded, torch.tensor([[-16.0, -16, 16, 16]]))


def test_images_share_their_anchors_and_half_precision_is_left() -> None:
    anchors, deltas = boxes(6), torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    decoded = decode_deltas(deltas, anchors)
    torch.testing.assert_close(decoded[1], decode_deltas(deltas[1], anchors))
    assert decode_deltas(deltas.bfloat16(), anchors).dtype == torch.float32
