"""Maps to tokens and back."""

from __future__ import annotations

import torch
from torch import nn

from boxwright.layers.tokens import to_map, to_tokens


def test_tokens_run_row_by_row_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 20, 3)
    assert torch.equal(tokens[1, 7], x[1, :, 1, 2])
    assert torch.equal(to_map(tokens, 4, 5), x)


def test_the_gradient_of_a_single_image_passes_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(1, 20, 3, dtype=torch.float64)
    (through_tokens,) = torch.autograd.grad((to_tokens(norm(x)) * wanted).sum(), x)
    (as_map,) = torch.autograd.grad((norm(x) * to_map(wanted, 4, 5).contiguous()).sum(), x)
    torch.testing.assert_close(through_tokens, as_map, rtol=1e-12, atol=1e-12)
