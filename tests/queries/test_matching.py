"""The assignment of least cost."""

from __future__ import annotations

import math
import warnings
from itertools import permutations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boxwright.queries.class_losses import FocalCost, SoftmaxCost
from boxwright.queries.matching import HungarianMatcher, Matches, NormalizedTargets


def written_out_cost(
    logits: Tensor,
    boxes: Tensor,
    target: NormalizedTargets,
    *,
    weights: tuple[float, float, float] = (2.0, 5.0, 2.0),
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> list[list[float]]:
    """Costs of one layer of one image, pair by pair, in plain Python."""
    rows = []
    for logit, box in zip(logits.tolist(), boxes.tolist(), strict=True):
        row = []
        for label, object_box in zip(target.labels.tolist(), target.boxes_cxcywh_norm.tolist(), strict=True):
            p = 1 / (1 + math.exp(-logit[label]))
            focal = alpha * (1 - p) ** gamma * -math.log(p) - (1 - alpha) * p**gamma * -math.log(1 - p)
            l1 = sum(abs(a - b) for a, b in zip(box, object_box, strict=True))
            row.append(weights[0] * focal + weights[1] * l1 - weights[2] * _giou(box, object_box))
        rows.append(row)
    return rows


def _giou(one: list[float], other: list[float]) -> float:
    both = hull = 1.0
    for axis in (0, 1):
        starts = [box[axis] - box[axis + 2] / 2 for box in (one, other)]
        ends = [box[axis] + box[axis + 2] / 2 for box in (one, other)]
        both *= max(0.0, min(ends) - max(starts))
        hull *= max(ends) - min(starts)
    union = one[2] * one[3] + other[2] * other[3] - both
    return both / union - (hull - union) / hull


def example(
    counts: list[int], *, layers: int = 2, queries: int = 5, classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, list[NormalizedTargets]]:
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return 0.2 + 0.4 * torch.rand(*shape, 4, generator=generator, dtype=torch.float64)

    logits = 2 * torch.randn(layers, len(counts), queries, classes, generator=generator, dtype=torch.float64)
    targets = [
        NormalizedTargets(torch.randint(0, classes, (n,), generator=generator), boxes(n).view(n, 4)) for n in counts
    ]
    return logits, boxes(layers, len(counts), queries), targets


def pairs(matches: Matches, layer: int, image: int) -> dict[int, int]:
    here = (matches.layer == layer) & (matches.image == image)
    return dict(zip(matches.query[here].tolist(), matches.object[here].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_costs_less(seed: int) -> None:
    counts = [3, 1, 2]
    logits, boxes, targets = example(counts, seed=seed)
    matches = HungarianMatcher()(logits, boxes, targets)
    assert len(matches.query) == 2 * sum(counts)
    for layer in range(2):
        first = 0
        for image, count in enumerate(counts):
            cost = written_out_cost(logits[layer, image], boxes[layer, image], targets[image])
            least = min(
                sum(cost[query][n] for n, query in enumerate(queries)) for queries in permutations(range(5), count)
            )
            matched = pairs(matches, layer, image)
            assert sorted(matched.values()) == list(range(first, first + count))
            assert sum(cost[q][n - first] for q, n in matched.items()) == pytest.approx(least, abs=1e-6)
            first += count


@pytest.mark.parametrize("weights", [(2.0, 5.0, 2.0), (1.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 7.0)])
def test_cost_is_the_formula(weights: tuple[float, float, float]) -> None:
    logits, boxes, targets = example([4], queries=6)
    matcher = HungarianMatcher(class_weight=weights[0], l1_weight=weights[1], giou_weight=weights[2])
    expected = [written_out_cost(logits[i, 0], boxes[i, 0], targets[0], weights=weights) for i in range(2)]
    ours = matcher.cost(logits[:, 0], boxes[:, 0], targets[0])
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 2.0), (0.25, 0.5), (0.6, 3.0)])
def test_alpha_and_gamma_reach_the_cost(alpha: float, gamma: float) -> None:
    logits, boxes, targets = example([4])
    matcher = HungarianMatcher(class_cost=FocalCost(alpha, gamma))
    expected = written_out_cost(logits[0, 0], boxes[0, 0], targets[0], alpha=alpha, gamma=gamma)
    ours = matcher.cost(logits[:, 0], boxes[:, 0], targets[0])[0]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_softmax_cost_is_minus_the_probability() -> None:
    logits, boxes, targets = example([4], classes=5)
    matcher = HungarianMatcher(class_cost=SoftmaxCost(), class_weight=3.0, l1_weight=0.0, giou_weight=0.0)
    for row, logit in zip(matcher.cost(logits[:, 0], boxes[:, 0], targets[0])[1], logits[1, 0].tolist(), strict=True):
        total = sum(math.exp(x) for x in logit)
        expected = [-3 * math.exp(logit[label]) / total for label in targets[0].labels.tolist()]
        assert row.tolist() == pytest.approx(expected, abs=1e-9)


def test_larger_batches_equal_scipy_on_the_written_out_cost() -> None:
    counts = [17, 0, 30, 4]
    logits, boxes, targets = example(counts, layers=3, queries=40, classes=6)
    matches = HungarianMatcher()(logits, boxes, targets)
    for layer in range(3):
        first = 0
        for image, count in enumerate(counts):
            cost = written_out_cost(logits[layer, image], boxes[layer, image], targets[image])
            queries, objects = linear_sum_assignment(torch.tensor(cost).reshape(40, count).numpy())
            assert pairs(matches, layer, image) == dict(zip(queries.tolist(), (objects + first).tolist(), strict=True))
            first += count


def test_an_image_is_only_compared_with_its_own_objects() -> None:
    logits, boxes, targets = example([3, 2], layers=2, queries=7)
    assert HungarianMatcher().cost(logits[:, 0], boxes[:, 0], targets[0]).shape == (2, 7, 3)
    together = HungarianMatcher()(logits, boxes, targets)
    alone = HungarianMatcher()(logits[:, 1:], boxes[:, 1:], targets[1:])
    for layer in range(2):
        expected = {query: n + 3 for query, n in pairs(alone, layer, 0).items()}
        assert pairs(together, layer, 1) == expected


def test_images_without_objects() -> None:
    logits, boxes, targets = example([0, 2, 0])
    assert HungarianMatcher()(logits, boxes, targets).image.tolist() == [1, 1, 1, 1]
    logits, boxes, targets = example([0, 0])
    matches = HungarianMatcher()(logits, boxes, targets)
    assert [len(index) for index in matches] == [0, 0, 0, 0]
    assert all(index.dtype == torch.int64 for index in matches)


def test_more_objects_than_queries_are_reported() -> None:
    logits, boxes, targets = example([2, 6], queries=4)
    with pytest.warns(UserWarning, match="an image holds 6 objects and the detector has 4 queries"):
        matches = HungarianMatcher()(logits, boxes, targets)
    for layer in range(2):
        assert sorted(pairs(matches, layer, 1)) == [0, 1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HungarianMatcher()(*example([4], queries=4))


@pytest.mark.parametrize(("where", "bad"), [("logits", math.nan), ("boxes", math.nan), ("boxes", math.inf)])
def test_what_is_not_finite_is_an_error(where: str, bad: float) -> None:
    logits, boxes, targets = example([2])
    (logits if where == "logits" else boxes)[0, 0, 1] = bad
    with pytest.raises(ValueError, match="not finite any more: training has diverged"):
        HungarianMatcher()(logits, boxes, targets)


def test_certain_predictions_have_finite_costs() -> None:
    logits, boxes, targets = example([2])
    assert HungarianMatcher().cost(1e4 * logits[:, 0], boxes[:, 0], targets[0]).isfinite().all()


def test_half_precision_predictions_are_matched_in_float32() -> None:
    logits, boxes, targets = example([3])
    logits, boxes = logits.bfloat16(), boxes.bfloat16()
    cost = HungarianMatcher().cost(logits[:, 0], boxes[:, 0], targets[0])
    assert cost.dtype in (torch.float32, torch.float64)
    expected = HungarianMatcher().cost(logits[:, 0].double(), boxes[:, 0].double(), targets[0])
    torch.testing.assert_close(cost.double(), expected, rtol=0, atol=1e-5)


def test_repeating_the_pairs_of_one_layer() -> None:
    index = torch.tensor([0, 0, 2])
    once = Matches(torch.zeros_like(index), index, torch.tensor([4, 1, 3]), torch.tensor([0, 1, 2]))
    thrice = once.repeat(3)
    assert thrice.layer.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert thrice.image.tolist() == [0, 0, 2] * 3
    assert thrice.query.tolist() == [4, 1, 3] * 3
    assert thrice.object.tolist() == [0, 1, 2] * 3
