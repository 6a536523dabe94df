"""Training of the same detector in two libraries, step by step on the same images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from conformance import compare_terms

NUM_STEPS = 20


def train(module: nn.Module, compute_loss: Callable[[], Tensor], lr: float, eps: float) -> list[float]:
    """Train some steps with AdamW; return the loss before each."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr, eps=eps)
    losses = []
    for _ in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def compare_training_steps(
    ours: tuple[nn.Module, Callable[[], Tensor]],
    theirs: tuple[nn.Module, Callable[[], Tensor]],
    *,
    limit: float,
    lr: float = 1e-4,
    eps: float = 1e-8,
) -> None:
    """Train both sides, and compare the loss of each step; the loss has to fall.

    Args:
        ours: a module in training mode, and the loss of the images with its present weights.
        theirs: the same with equal weights.
        limit: largest relative difference.
        lr: learning rate.
        eps: of AdamW; more than rounding, where gradients that are zero but for rounding would be made large.
    """
    curves = [train(module, compute_loss, lr, eps) for module, compute_loss in (ours, theirs)]
    assert curves[1][-1] < 0.9 * curves[1][0], f"nothing is learned: {curves[1]}"
    compare_terms(*(dict(enumerate(map(float, curve))) for curve in curves), limit=limit, kind="20 training steps")
