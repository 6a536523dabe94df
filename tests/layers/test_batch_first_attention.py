"""Attention in batches, whose projections are one matrix product with and without gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from boxwright.layers.batch_first_attention import BatchFirstAttention

DIM, HEADS = 16, 4


def count_products(module: nn.Module, content: Tensor, *, gradients: bool) -> dict[str, int]:
    """Count products of matrices, in a batch and single ones, of the kernels that run."""
    positioned = content + 1
    with torch.set_grad_enabled(gradients), profile(activities=[ProfilerActivity.CPU]) as ran:
        module(positioned, positioned, content, need_weights=False)
    counts = {event.key: event.count for event in ran.key_averages()}
    return {name: counts.get(f"aten::{name}", 0) for name in ("bmm", "addmm")}


def make_pair() -> tuple[BatchFirstAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    own, torchs = BatchFirstAttention(DIM, HEADS), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    torchs.load_state_dict(own.state_dict())
    return own.eval(), torchs.eval()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["self", "positions", "memory"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_the_numbers_are_torchs(batch: int, form: str, need_weights: bool) -> None:
    own, torchs = make_pair()
    content, memory = torch.rand(batch, 5, DIM), torch.rand(batch, 7, DIM)
    arguments: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        "self": (content, content, content),
        "positions": (positioned := content + 1, positioned, content),
        "memory": (content, memory + 1, memory),
    }
    padding = torch.zeros(batch, arguments[form][1].shape[1], dtype=torch.bool)
    padding[-1, -2:] = True
    for masks in ({}, {"key_padding_mask": padding}):
        with torch.no_grad():
            actual, weights = own(*arguments[form], need_weights=need_weights, **masks)
            expected, expected_weights = torchs(*arguments[form], need_weights=need_weights, **masks)
        assert torch.allclose(actual, expected, atol=1e-6)
        assert (weights is None) == (expected_weights is None)
        if weights is not None and expected_weights is not None:
            assert torch.allclose(weights, expected_weights, atol=1e-6)


def test_no_weight_is_copied_for_each_token() -> None:
    own, torchs = make_pair()
    content = torch.rand(8, 30, DIM)
    for module in (own, torchs):  # as folded detectors have them
        module.requires_grad_(False)
    assert count_products(own, content, gradients=False) == {"bmm": 0, "addmm": 4}
    in_torch = count_products(torchs, content, gradients=False)
    assert in_torch == {"bmm": 3, "addmm": 1}, "torch has mended it: this class is not needed any more"


def test_with_gradients_it_is_torchs_own() -> None:
    own, torchs = make_pair()
    content = torch.rand(3, 5, DIM, requires_grad=True)
    assert count_products(own, content, gradients=True) == count_products(torchs, content, gradients=True)
    assert torch.equal(own(content, content, content)[0], torchs(content, content, content)[0])
