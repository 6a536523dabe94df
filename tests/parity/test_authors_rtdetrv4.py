"""RT-DETRv4's distillation beside its authors': numbers made once with their code (see README.md)."""

from __future__ import annotations

import pytest
import torch
from formula import set_weights, uniform

from boxwright.queries.distillation import FeatureDistillation, steer_weight
from boxwright.queries.options import DistillationOptions
from boxwright.structures import Level, LossTotals, Targets
from conformance import compare_terms, note_inputs

pytestmark = pytest.mark.conforms("distillation of RT-DETRv4", "rtdetrv4")

NONE = torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)

LOSSES = {
    (1, 5, 7): (4.847856806861993, (-0.16085393064242454, 0.4314935426512341, -0.0012911775879211607)),
    (3, 2, 3): (5.1109192132801065, (0.36539246533810577, 0.663072587117493, 0.08957417592431918)),
}
"""By images, rows and columns: the loss, and projections of the gradients of features, weight and bias."""

STEERED = (
    (5.0, 0.2, False, 2.2222222222222223),
    (5.0, 0.03, False, 22.04545454545454),
    (5.0, 0.114, False, 5.0),
    (5.0, 0.9, False, 0.5),
    (5.0, 0.0005, False, 50.0),
    (1e-7, 0.03, False, 1e-7),
    (5.0, 0.0, False, 20.0),
    (5.0, 0.11, True, 20.0),
    (5.0, 1.0, False, 0.5),
)
"""Weight, fraction of the gradient, whether strong augmentation has ended, and the next weight."""


@pytest.mark.parametrize("shape", LOSSES)
def test_loss_and_gradients(shape: tuple[int, int, int]) -> None:
    batch, rows, columns = shape
    options = DistillationOptions(teacher="any", channels=48, weight=5.0)
    distillation = FeatureDistillation({"c5": Level(32, 32)}, options).double()
    set_weights(distillation.projection)
    features = uniform("student", batch, 32, rows, columns).requires_grad_()
    maps = uniform("teacher", batch, 48, rows, columns)
    targets = [Targets(*NONE, (32 * rows, 32 * columns), teacher=one) for one in maps]
    loss = distillation.loss(distillation({"c5": features}), targets, LossTotals.of(targets))
    expected, projections = LOSSES[shape]
    note_inputs(maps)
    compare_terms({"distillation": loss}, {"distillation": expected}, limit=1e-12)
    parameters = {"features": features, **dict(distillation.projection.named_parameters())}
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    along = {
        name: (gradient * uniform(f"direction of {name}", *gradient.shape)).sum()
        for name, gradient in zip(parameters, gradients, strict=True)
    }
    compare_terms(along, dict(zip(parameters, projections, strict=True)), limit=1e-10, kind="gradients")


@pytest.mark.parametrize(("weight", "fraction", "is_late", "expected"), STEERED)
def test_weights_of_the_small_model(weight: float, fraction: float, is_late: bool, expected: float) -> None:
    options = DistillationOptions(teacher="any", gradient_fraction=0.11, tolerance=0.01, late_weight=20.0)
    actual = steer_weight(weight, fraction, options, is_late=is_late)
    compare_terms({"weight": actual}, {"weight": expected}, limit=1e-12)
