"""Boxes whose sides are distributions."""

from __future__ import annotations

import math

import pytest
import torch

from boxwright.queries.distributions import LocationQuality, SideBins

REFERENCE = torch.tensor([[0.5, 0.4, 0.2, 0.1]], dtype=torch.float64)


def test_bins_are_those_of_the_paper() -> None:
    """W(n) with 32 bins, a of 2 and s of 3^(1/15)."""
    offsets = SideBins(32, 4.0).offsets(REFERENCE)
    s = 3 ** (1 / 15)
    inner = [s**i - 1 for i in range(1, 16)]
    expected = [-4.0, *(-x for x in reversed(inner)), 0.0, *inner, 4.0]
    assert offsets.tolist() == pytest.approx(expected, abs=1e-14)
    assert inner[-1] == pytest.approx(2.0)


@pytest.mark.parametrize(("num_bins", "scale"), [(3, 4.0), (2, 4.0), (5, 4.0), (32, 0.0), (32, -1.0)])
def test_bins_that_cannot_be_are_refused(num_bins: int, scale: float) -> None:
    with pytest.raises(ValueError, match=r"num_bins is even and at least 4|bin_scale is positive"):
        SideBins(num_bins, scale)


def test_even_distributions_leave_the_reference() -> None:
    bins = SideBins(32, 4.0)
    boxes = bins.decode(REFERENCE[None], torch.zeros(1, 1, 4, 33, dtype=torch.float64))
    torch.testing.assert_close(boxes[0], REFERENCE)


def test_sides_of_objects_are_located_and_decoded_again() -> None:
    """A distribution over the two bins around each side is decoded to that side."""
    bins = SideBins(32, 4.0)
    objects = torch.tensor([[0.53, 0.39, 0.25, 0.08]], dtype=torch.float64)
    left, right_weight = bins.locate(REFERENCE, objects)
    assert left.shape == right_weight.shape == (1, 4)
    assert left.unique().numel() > 2
    logits = torch.full((1, 1, 4, 33), -1e4, dtype=torch.float64)
    logits[0, 0].scatter_(-1, left[0, :, None], (1 - right_weight[0, :, None]).log())
    logits[0, 0].scatter_(-1, left[0, :, None] + 1, right_weight[0, :, None].log())
    torch.testing.assert_close(bins.decode(REFERENCE[None], logits)[0], objects)


def test_sides_beyond_the_ends_are_at_them() -> None:
    bins = SideBins(8, 4.0)
    far = torch.tensor([[0.5, 0.4, 2.0, 1.0]], dtype=torch.float64)  # each side 4.5 times the reference's half
    left, right_weight = bins.locate(REFERENCE, far)
    assert left.tolist() == [[7] * 4]
    assert right_weight.tolist() == [[1.0] * 4]
    shifted = torch.tensor([[3.0, 0.4, 0.01, 0.1]], dtype=torch.float64)
    left, right_weight = bins.locate(REFERENCE, shifted)
    assert (left[0, 0], right_weight[0, 0]) == (0, 0.0)
    assert (left[0, 2], right_weight[0, 2]) == (7, 1.0)


def test_quality_tells_peaks_and_begins_at_nothing() -> None:
    quality = LocationQuality()
    logits = torch.randn(2, 3, 4, 33)
    assert torch.equal(quality(logits), torch.zeros(2, 3, 1))
    torch.nn.init.ones_(quality.mlp.layers[-1].weight)
    torch.nn.init.ones_(quality.mlp.layers[0].weight)
    torch.nn.init.zeros_(quality.mlp.layers[0].bias)
    flat = torch.zeros(1, 1, 4, 33)
    # Five numbers of 1 / 33 for each of four sides, summed in each of 64 units.
    assert quality(flat).item() == pytest.approx(64 * 20 / 33, rel=1e-5)
    assert math.isfinite(quality(1e4 * logits).sum().item())


def test_standard_deviations_of_sides() -> None:
    """Two equal bins at W = -1 and 1 lie one step apart from their mean; a single bin does not deviate."""
    bins = SideBins(8, 4.0)
    offsets = bins.offsets(REFERENCE)
    logits = torch.full((2, 1, 1, 4, 9), -1e4, dtype=torch.float64)
    logits[0, ..., 6] = 0.0
    logits[1, ..., 2] = logits[1, ..., 6] = 0.0
    std = bins.measure_std(REFERENCE[None], logits)
    step = float(offsets[6]) / 4.0
    expected = [step * 0.2, step * 0.1, step * 0.2, step * 0.1]
    assert step > 0.1
    assert std.flatten().tolist() == pytest.approx([0.0] * 4 + expected, abs=1e-14)
