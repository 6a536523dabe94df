"""Attention in batches, whose projections are one matrix product with and without gradients."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["self", "positions", "memory"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_the_numbers_are_torchs(gradients: bool, batch: int, form: str, need_weights: bool) -> None:
    """Outputs and weights; with gradients, those of inputs and parameters too; without masks, and with one or both."""
    pair = make_pair()
    for module in pair:
        module.double()
    queries, keys = 5, 7 if form == "memory" else 5
    padding = torch.zeros(batch, keys, dtype=torch.bool)
    padding[-1, -2:] = True
    blocked = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    for masks in (
        {},
        {"key_padding_mask": padding},
        {"attn_mask": blocked},
        {"key_padding_mask": padding, "attn_mask": blocked},
    ):
        own, torchs = (
            attend(module, batch, form, gradients=gradients, need_weights=need_weights, **masks) for module in pair
        )
        assert own.keys() == torchs.keys()
        assert ("weights" in own) == need_weights
        assert ("in_proj_weight" in own) == gradients
        for name, expected in torchs.items():
            torch.testing.assert_close(own[name], expected, rtol=0, atol=1e-14, msg=name)


def attend(
    module: nn.MultiheadAttention, batch: int, form: str, *, gradients: bool, **options: Any
) -> dict[str, Tensor]:
    """Name what comes out, and with gradients, those of a weighted sum of the outputs."""
    generator = torch.Generator().manual_seed(1)
    content, memory = (torch.rand(batch, n, DIM, generator=generator, dtype=torch.float64) for n in (5, 7))
    content.requires_grad_(gradients)
    memory.requires_grad_(gradients)
    arguments: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        "self": (content, content, content),
        "positions": (positioned := content + 1, positioned, content),
        "memory": (content, memory + 1, memory),
    }
    module.zero_grad()
    with torch.set_grad_enabled(gradients):
        out, weights = module(*arguments[form], **options)
    numbers = {"out": out} if weights is None else {"out": out, "weights": weights}
    if gradients:
        (out * torch.rand(out.shape, generator=generator, dtype=torch.float64)).sum().backward()
        leaves = {**dict(module.named_parameters()), "content": content, "memory": memory}
        numbers |= {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return numbers


@pytest.mark.parametrize("gradients", [False, True])
def test_projections_are_products_of_all_tokens(gradients: bool) -> None:
    """Queries and keys, values, and what comes out; torch's copy each weight for each token of a batch."""
    own, torchs = make_pair()
    content = torch.rand(8, 30, DIM)
    for module in (own, torchs):  # as folded detectors have them
        module.requires_grad_(gradients)
    assert count_products(own, content, gradients=gradients) == {"bmm": 0, "addmm": 3}
    if not gradients:
        in_torch = count_products(torchs, content, gradients=False)
        assert in_torch == {"bmm": 3, "addmm": 1}, "torch has mended it"


def test_a_mask_of_each_image_and_head() -> None:
    """Of shape (images times heads, queries, keys), beside padding: as in torch."""
    own, torchs = make_pair()
    generator = torch.Generator().manual_seed(2)
    content = torch.rand(3, 6, DIM, generator=generator)
    blocked = torch.rand(3 * HEADS, 6, 6, generator=generator) < 0.4
    blocked[:, :, 0] = False
    padding = torch.tensor([[False] * 4 + [True] * n + [False] * (2 - n) for n in range(3)])
    results = [
        module(content, content, content, key_padding_mask=padding, attn_mask=blocked, need_weights=False)[0]
        for module in (own, torchs)
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_dropout_is_of_training_alone() -> None:
    module = BatchFirstAttention(DIM, HEADS, dropout=0.5)
    content = torch.rand(2, 9, DIM)
    first, second = (module(content, content, content, need_weights=False)[0] for _ in range(2))
    assert not torch.equal(first, second)
    module.eval()
    first, second = (module(content, content, content, need_weights=False)[0] for _ in range(2))
    assert torch.equal(first, second)
