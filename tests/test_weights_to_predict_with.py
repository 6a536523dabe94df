"""Weights that predictions are made with: the moving average wherever there is one."""

from __future__ import annotations

from pathlib import Path

import torch

import boxwright
from boxwright.checkpoints import read_checkpoint, weights_of


def test_the_average_goes_before_the_weights() -> None:
    model, average = {"x": torch.zeros(2)}, {"x": torch.ones(2)}
    assert weights_of({"model": model, "ema": average}) is average
    assert weights_of({"model": model}) is model


def test_a_checkpoint_to_go_on_from_predicts_with_its_average(trained: Path) -> None:
    """``last.pt`` has both."""
    content, state = read_checkpoint(trained / "last.pt"), boxwright.load(trained / "last.pt").state_dict()
    assert any(not torch.equal(content["ema"][name], tensor) for name, tensor in content["model"].items())
    for name, tensor in content["ema"].items():
        assert torch.equal(state[name], tensor), name
