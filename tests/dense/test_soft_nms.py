"""Soft suppression beside its definition, one class after another."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxwright.dense.soft_nms import soft_nms

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes, scores and labels of one image."""


def candidates(count: int, num_classes: int, seed: int = 0) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    sides = torch.rand(count, 2, generator=generator) * 60 + 5
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return torch.cat((corner, corner + sides), 1), torch.rand(count, generator=generator), labels


def suppress(
    *images: Candidates, valid: list[list[bool]] | None = None, **options: float
) -> list[tuple[Tensor, Tensor]]:
    """Indices and lowered scores of what is kept of each image."""
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
    mask = torch.ones_like(labels, dtype=torch.bool) if valid is None else torch.tensor(valid)
    kept, lowered, good = soft_nms(boxes, scores, labels, mask, **options)  # type: ignore[arg-type]
    return [(i[g], s[g]) for i, s, g in zip(kept, lowered, good, strict=True)]


def written_out(
    boxes: Tensor, scores: Tensor, labels: Tensor, sigma: float, threshold: float
) -> list[tuple[float, int]]:
    """Scores and indices of all that is kept: each class by itself, then sorted."""
    kept = []
    for label in labels.unique():
        rest = {int(i): float(scores[i]) for i in torch.where(labels == label)[0]}
        while rest:
            best = max(rest, key=lambda i: rest[i])
            score = rest.pop(best)
            if score <= threshold:
                break
            kept.append((score, best))
            for i in rest:
                overlap = float(box_iou(boxes[best][None], boxes[i][None]))
                rest[i] *= math.exp(-(overlap**2) / sigma)
    return sorted(kept, reverse=True)


@pytest.mark.parametrize("threshold", [0.001, 0.3])
@pytest.mark.parametrize("sigma", [0.5, 0.05])
def test_as_written_out_for_every_image(sigma: float, threshold: float) -> None:
    images = [candidates(40, 3, seed) for seed in (0, 1)]
    results = suppress(*images, max_detections=100, sigma=sigma, score_threshold=threshold)
    for image, (kept, scores) in zip(images, results, strict=True):
        expected = written_out(*image, sigma, threshold)
        assert len(expected) < 40 or threshold < 0.3
        torch.testing.assert_close(scores, torch.tensor([score for score, _ in expected]), rtol=1e-5, atol=1e-6)
        assert kept.tolist() == [index for _, index in expected]


def test_fewer_rounds_keep_the_best_of_all() -> None:
    image = candidates(40, 3)
    ((kept, scores),), ((some, some_scores),) = suppress(image, max_detections=40), suppress(image, max_detections=7)
    assert torch.equal(some, kept[:7])
    assert torch.equal(some_scores, scores[:7])


def test_the_same_box_again_loses_most_of_its_score() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    image = (box, torch.tensor([0.5, 0.8, 0.6]), torch.tensor([1, 1, 0]))
    ((kept, scores),) = suppress(image, max_detections=10)
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.6, 0.5 * math.exp(-2)]))
    assert kept.tolist() == [1, 2, 0]
    assert image[1].tolist() == torch.tensor([0.5, 0.8, 0.6]).tolist()


def test_equal_scores_keep_their_order() -> None:
    corner = torch.arange(8.0)[:, None] * 20
    boxes = torch.cat((corner, corner, corner + 10, corner + 10), 1)
    ((kept, _),) = suppress((boxes, torch.full((8,), 0.5), torch.arange(8)), max_detections=8)
    assert kept.tolist() == list(range(8))


def test_boxes_that_are_not_valid_neither_stay_nor_lower_scores() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    image = (box, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64))
    one, none = suppress(image, image, valid=[[False, True, False], [False] * 3], max_detections=3)
    assert one[0].tolist() == [1]
    assert one[1].tolist() == torch.tensor([0.8]).tolist()
    assert len(none[0]) == 0


def test_the_shape_does_not_depend_on_what_is_kept() -> None:
    boxes, scores, labels = (x[None] for x in candidates(4, 2))
    kept, lowered, valid = soft_nms(boxes, scores, labels, labels < 0, max_detections=9)
    assert kept.shape == lowered.shape == valid.shape == (1, 9)
    assert not valid.any()
