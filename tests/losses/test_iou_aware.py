"""The IoU-aware loss, against numbers of RF-DETR's code, 35ac6ab (``loss_labels``)."""

from __future__ import annotations

import pytest
import torch

from boxwright.losses.iou_aware import iou_aware_loss
from boxwright.queries.class_losses import IoUAwareLoss, MatchedQueries
from boxwright.structures import LossTotals

LOGITS = ((-2.0, 0.5, 1.5), (0.3, -0.7, -3.0), (2.0, -1.0, 0.0), (-6.0, -5.0, -4.0))
GRADIENT = (
    (1.62364673179759135e-03, 1.75383940624861012e-01, 4.57235163059938471e-02),
    (1.43796883719520568e-01, 3.19515741468353875e-02, 1.04957282162759755e-04),
    (3.58904576816160670e-01, 1.75270433258535377e-02, 9.94289317133287692e-02),
    (1.51048147898022618e-08, -1.10238302523840703e-03, 5.78351040717919060e-06),
)


def test_numbers_of_the_authors() -> None:
    """Queries 0, 1 and 3 have objects of classes 2, 0 and 1, with IoUs of 0.64, 0.09 and 0; query 2 has none."""
    logits = torch.tensor(LOGITS, dtype=torch.float64)[None, None].requires_grad_()
    query, label = torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1])
    zero = torch.zeros(3, dtype=torch.int64)
    matched = MatchedQueries(zero, zero, query, label, torch.tensor([0.64, 0.09, 0.0], dtype=torch.float64))
    loss = IoUAwareLoss()(logits, matched, LossTotals(objects=3, images=1))
    assert loss.item() == pytest.approx(1.2729021032890067, rel=1e-12)
    loss.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor(GRADIENT, dtype=torch.float64), rtol=1e-10, atol=0)


def test_matches_of_poor_boxes_have_the_least_target() -> None:
    """The score is drawn to it, from either side."""
    logits = torch.logit(torch.tensor([[0.005], [0.01], [0.5]], dtype=torch.float64)).requires_grad_()
    positive = torch.ones(3, 1, dtype=torch.bool)
    iou_aware_loss(logits, torch.zeros_like(logits), positive).sum().backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-0.005, 0.0, 0.49], abs=1e-12)
