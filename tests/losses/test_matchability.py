"""The matchability-aware loss, against numbers of DEIM's code, a9aa4ad (``loss_labels_mal``)."""

from __future__ import annotations

import pytest
import torch

from boxwright.losses.matchability import matchability_loss
from boxwright.queries.class_losses import MatchabilityLoss, MatchedQueries
from boxwright.structures import LossTotals
from conformance import compare_gradients, compare_terms

LOGITS = ((-2.0, 0.5, 1.5), (0.3, -0.7, -3.0), (2.0, -1.0, 0.0))
GRADIENT = (
    (0.0024529418781743004, 0.1528436705567754, 0.15278723809682182),
    (0.2737212584058295, 0.03171034524952389, 0.00024491102920029794),
    (0.3640488532348555, 0.01875487801961684, 0.08838834764831845),
)


@pytest.mark.conforms("matchability-aware loss", "deim")
def test_numbers_of_the_authors() -> None:
    """Query 0 has an object of class 2 with an IoU of 0.64, query 1 one of class 0 with 0.09; query 2 has none."""
    logits = torch.tensor(LOGITS, dtype=torch.float64)[None, None].requires_grad_()
    query, label = torch.tensor([0, 1]), torch.tensor([2, 0])
    zero = torch.zeros(2, dtype=torch.int64)
    matched = MatchedQueries(zero, zero, query, label, torch.tensor([0.64, 0.09], dtype=torch.float64))
    loss = MatchabilityLoss()(logits, matched, LossTotals(objects=2, images=1))
    compare_terms({"mal": loss}, {"mal": 2.1938855577520417}, limit=1e-12)
    loss.sum().backward()
    assert logits.grad is not None
    expected = torch.tensor(GRADIENT, dtype=torch.float64)
    actual = {"logits": logits.grad[0, 0]}
    compare_gradients(actual, {"logits": expected}, limit=1e-10, elements=(1e-10, 0.0))


def test_matches_of_poor_boxes_count_in_full() -> None:
    """The varifocal loss would weigh a match by its IoU: 0 here."""
    logits = torch.tensor([[1.0]], dtype=torch.float64)
    positive = torch.tensor([[True]])
    loss = matchability_loss(logits, torch.zeros_like(logits), positive)
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(logits).item())
