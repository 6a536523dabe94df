"""Counts of matches that only predictions tell: taken before the step, and without a trace."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from partition_cases import family_run, first_batch
from torch import nn

from boxwright.data.records import DetectionData
from boxwright.training import step
from boxwright.training.distributed import Rank
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step

CPU = torch.device("cpu")


@pytest.mark.parametrize(("accumulate", "forwards"), [(1, 1), (2, 4)])
def test_norms_and_draws_are_those_of_one_pass(
    accumulate: int, forwards: int, data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = family_run("dfine", data, tmp_path)
    batch = first_batch(run, Rank(0, 1, CPU))
    detector, calls, draws = deepcopy(run.detector).train(), list[bool](), list[float]()
    forward = step._forward

    def draw_and_predict(*arguments: object) -> object:
        calls.append(torch.is_grad_enabled())
        draws.append(torch.rand(()).item())
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(step, "_forward", draw_and_predict)
    options = replace(run.options, batches=replace(run.options.batches, accumulate_steps=accumulate))
    train_step(detector, detector, make_optimizer(detector, options), batch, options, CPU)
    assert len(calls) == forwards
    assert calls == [False] * (forwards - accumulate) + [True] * accumulate
    # What is counted is what is trained on: dropout would draw the same.
    assert draws[:accumulate] == draws[-accumulate:]
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [module for module in run.detector.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm, unused in zip(norms, before, strict=True):
        assert norm.num_batches_tracked is not None
        assert unused.num_batches_tracked is not None
        assert norm.num_batches_tracked - unused.num_batches_tracked == accumulate
