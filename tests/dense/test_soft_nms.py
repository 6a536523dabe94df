"""Soft suppression beside its definition, one class after another."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_iou

from boxwright.dense.soft_nms import soft_nms
from boxwright.detections import Detections


def candidates(count: int, num_classes: int, seed: int = 0) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    sides = torch.rand(count, 2, generator=generator) * 60 + 5
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return Detections(torch.cat((corner, corner + sides), 1), torch.rand(count, generator=generator), labels)


def written_out(given: Detections, sigma: float, threshold: float) -> list[tuple[float, int]]:
    """Scores and places of all that is kept: each class by itself, then sorted."""
    kept = []
    for label in given.labels.unique():
        rest = {int(i): float(given.scores[i]) for i in torch.where(given.labels == label)[0]}
        while rest:
            best = max(rest, key=lambda i: rest[i])
            score = rest.pop(best)
            if score <= threshold:
                break
            kept.append((score, best))
            for i in rest:
                overlap = float(box_iou(given.boxes[best][None], given.boxes[i][None]))
                rest[i] *= math.exp(-(overlap**2) / sigma)
    return sorted(kept, reverse=True)


@pytest.mark.parametrize("threshold", [0.001, 0.3])
@pytest.mark.parametrize("sigma", [0.5, 0.05])
def test_as_written_out(sigma: float, threshold: float) -> None:
    given = candidates(40, 3)
    expected = written_out(given, sigma, threshold)
    found = soft_nms(given, max_detections=100, sigma=sigma, score_threshold=threshold)
    assert len(expected) < 40 or threshold < 0.3
    places = torch.tensor([place for _, place in expected])
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _ in expected]), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.boxes, given.boxes[places])
    assert torch.equal(found.labels, given.labels[places])


def test_fewer_rounds_keep_the_best_of_all() -> None:
    given = candidates(40, 3)
    everything, some = soft_nms(given, max_detections=40), soft_nms(given, max_detections=7)
    for found, all_of_it in zip(some[:3], everything[:3], strict=True):
        assert torch.equal(found, all_of_it[:7])


def test_the_same_box_again_loses_most_of_its_score() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    given = Detections(box, torch.tensor([0.5, 0.8, 0.6]), torch.tensor([1, 1, 0]))
    found = soft_nms(given, max_detections=10)
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.6, 0.5 * math.exp(-2)]))
    assert found.labels.tolist() == [1, 0, 1]
    assert given.scores.tolist() == torch.tensor([0.5, 0.8, 0.6]).tolist()


def test_equal_scores_keep_their_order() -> None:
    corner = torch.arange(8.0)[:, None] * 20
    given = Detections(torch.cat((corner, corner, corner + 10, corner + 10), 1), torch.full((8,), 0.5), torch.arange(8))
    assert soft_nms(given, max_detections=8).labels.tolist() == list(range(8))


def test_no_candidates() -> None:
    found = soft_nms(candidates(0, 3), max_detections=10)
    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0
