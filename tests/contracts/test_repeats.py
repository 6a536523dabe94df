"""A step that is done twice has the same losses and gradients, bit by bit, and no sign of an overflow.

On a CPU, with as many threads; with another number of threads sums are in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.training import overflow
from boxwright.training.step import StepResult, compute_gradients
from small_recipes import every_classifier, every_detector

MakeTargets = Callable[..., list[Targets]]
SIDE = 96
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def deterministic() -> Any:
    """Operations without a deterministic form are an error."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_batch(targets: list[Targets]) -> Batch:
    images = torch.rand(len(targets), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return Batch(images, None, targets, [ImageSize(SIDE, SIDE, SIDE, SIDE)] * len(targets), list(range(len(targets))))


def do_step(recipe: Recipe, batch: Batch) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """Build the detector anew, compute its gradients, and look for values that are not finite on the way."""
    torch.manual_seed(0)
    detector = build_resolved(recipe, categories=[Category(i, f"class {i}") for i in range(3)]).train()
    detector.to(memory_format=torch.channels_last)
    torch.manual_seed(5)
    with overflow._watch(detector) as watch:
        result = compute_gradients(detector, detector, batch, recipe.train, CPU, None)
    assert watch.forward is None
    assert watch.backward is None
    return result, {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def check(recipe: Recipe, batch: Batch) -> None:
    (result, gradients), (again, gradients_again) = do_step(recipe, batch), do_step(recipe, batch)
    assert again == result
    assert len(gradients) > 10
    assert gradients_again.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradients_again[name], gradient), name


@every_detector
def test_detectors(recipe: Recipe, make_targets: MakeTargets) -> None:
    check(recipe, make_batch(make_targets([3, 0, 5, 1], size=(SIDE, SIDE), num_classes=3)))


@every_classifier
def test_classifiers(recipe: Recipe) -> None:
    whole = torch.tensor([[0.0, 0, SIDE, SIDE]])
    check(recipe, make_batch([Targets(torch.tensor([i % 3]), whole, (SIDE, SIDE)) for i in range(4)]))
