"""Denoising queries: noise, matches and attention mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.rt_detr import modeling_rt_detr

from boxwright.ops.boxes import cxcywh_to_xyxy, inverse_sigmoid
from boxwright.queries import DenoisingOptions, DenoisingQueries, NormalizedTargets, draw_denoising_queries

CLASSES = 5


def objects(*counts: int, classes: int = CLASSES) -> list[NormalizedTargets]:
    """Draw small objects in the middle, whose noise is never clipped."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for count in counts:
        centers = 0.4 + 0.2 * torch.rand(count, 2, generator=generator)
        sides = 0.1 + 0.2 * torch.rand(count, 2, generator=generator)
        targets.append(NormalizedTargets(torch.arange(count) % classes, torch.cat((centers, sides), 1)))
    return targets


def draw(targets: list[NormalizedTargets], classes: int = CLASSES, **options: Any) -> DenoisingQueries:
    return draw_denoising_queries(targets, classes, DenoisingOptions(**options))


def noise(queries: DenoisingQueries, target: NormalizedTargets, image: int, most: int) -> Tensor:
    """Measure the movement of each corner in half sides: (groups, recover or reject, object, corner)."""
    count = len(target.labels)
    boxes = cxcywh_to_xyxy(queries.boxes_cxcywh_norm[image]).view(queries.num_groups, 2, most, 4)[:, :, :count]
    half = target.boxes_cxcywh_norm[:, 2:].repeat(1, 2) / 2
    return (boxes - cxcywh_to_xyxy(target.boxes_cxcywh_norm)) / half


@pytest.mark.parametrize(
    ("counts", "num_queries", "groups"), [((3, 1), 100, 33), ((7, 0, 2), 10, 1), ((5, 2), 3, 1), ((4,), 8, 2)]
)
def test_structure_of_the_groups(counts: tuple[int, ...], num_queries: int, groups: int) -> None:
    targets = objects(*counts)
    queries = draw(targets, num_queries=num_queries, label_noise=0.0, box_noise=0.0)
    most = max(counts)
    assert queries.num_groups == groups
    assert queries.labels.shape == (len(counts), 2 * most * groups)
    for image, (count, target) in enumerate(zip(counts, targets, strict=True)):
        labels = queries.labels[image].view(2 * groups, most)
        boxes = queries.boxes_cxcywh_norm[image].view(2 * groups, most, 4)
        assert (labels[:, :count] == target.labels).all()
        assert (labels[:, count:] == CLASSES).all()
        torch.testing.assert_close(
            boxes[:, :count], target.boxes_cxcywh_norm.expand(2 * groups, -1, -1), rtol=0, atol=1e-6
        )
        assert boxes[:, count:].abs().sum() == 0


def test_first_halves_have_to_recover_their_objects() -> None:
    queries = draw(objects(2, 0, 3), num_queries=6)
    # Two groups of 3 + 3 queries; objects are counted over the whole batch.
    assert queries.matches.layer.tolist() == [0] * 10
    assert queries.matches.image.tolist() == [0] * 4 + [2] * 6
    assert queries.matches.query.tolist() == [0, 1, 6, 7, 0, 1, 2, 6, 7, 8]
    assert queries.matches.object.tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]


@pytest.mark.parametrize("box_noise", [1.0, 0.4])
def test_corners_move_less_than_half_a_side_or_half_to_a_whole_side(box_noise: float) -> None:
    targets = objects(10, 6)
    torch.manual_seed(0)
    queries = draw(targets, num_queries=1000, box_noise=box_noise)
    for image, target in enumerate(targets):
        moved = noise(queries, target, image, 10) / box_noise
        recover, reject = moved[:, 0].abs(), moved[:, 1].abs()
        slack = 1e-4
        assert recover.max() < 1 + slack
        assert 1 - slack <= reject.min()
        assert reject.max() < 2 + slack
        # Both are even over their ranges, and every corner goes either way: 4 x 100 x objects draws.
        assert recover.mean().item() == pytest.approx(0.5, abs=0.03)
        assert reject.mean().item() == pytest.approx(1.5, abs=0.03)
        assert recover.max() > 0.98
        assert (moved > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
        assert moved.std((0, 1)).min() > 0.9


def test_noised_boxes_stay_in_the_image() -> None:
    large = NormalizedTargets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.9, 0.9]]))
    corners = cxcywh_to_xyxy(draw([large]).boxes_cxcywh_norm)
    assert corners.min() == 0
    assert corners.max() == 1


@pytest.mark.parametrize(("label_noise", "classes"), [(0.5, 4), (1.0, 4), (0.2, 20), (2.0, 3)])
def test_fraction_of_changed_labels(label_noise: float, classes: int) -> None:
    targets = objects(10, 10, classes=classes)
    torch.manual_seed(0)
    queries = draw(targets, classes, num_queries=5000, label_noise=label_noise)
    true = torch.stack([t.labels for t in targets]).repeat(1, 2 * queries.num_groups)
    fraction = (queries.labels != true).float().mean().item()
    # A new label is drawn from all, and one time in C is the old one. 20,000 draws: 4 standard deviations.
    expected = label_noise / 2 * (1 - 1 / classes)
    assert fraction == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 20_000) ** 0.5)
    assert queries.labels.max() < classes
    drawn = queries.labels[queries.labels != true].bincount(minlength=classes) / (queries.labels != true).sum()
    assert drawn.min() > 0.5 / classes


def test_queries_without_object_never_have_a_label() -> None:
    queries = draw(objects(5, 1), label_noise=2.0)
    labels = queries.labels[1].view(-1, 5)
    assert (labels[:, 1:] == CLASSES).all()
    assert (labels[:, 0] < CLASSES).all()


def test_attention_is_blocked_between_groups() -> None:
    queries = draw(objects(2, 1), num_queries=6)
    assert queries.num_groups == 3
    blocked = queries.block_attention(5)
    assert blocked.shape == (17, 17)
    for row in range(17):
        for column in range(17):
            own, other = row // 4, column // 4  # groups of 2 + 2 queries; from 12 on, matching queries
            expected = column < 12 and (row >= 12 or own != other)
            assert blocked[row, column].item() == expected, (row, column)


def test_batch_without_any_object_has_one_query_without_object() -> None:
    queries = draw(objects(0, 0))
    assert queries.num_groups == 1
    assert queries.labels.tolist() == [[CLASSES, CLASSES]] * 2
    assert queries.boxes_cxcywh_norm.abs().sum() == 0
    assert [len(index) for index in queries.matches] == [0, 0, 0, 0]
    assert queries.block_attention(3).tolist() == [[False] * 5] * 2 + [[True, True, False, False, False]] * 3


def test_equal_seeds_give_equal_queries() -> None:
    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return draw(objects(3, 2)).boxes_cxcywh_norm

    torch.testing.assert_close(seeded(1), seeded(1), rtol=0, atol=0)
    assert (seeded(1) != seeded(2)).any()


@pytest.mark.parametrize("counts", [(3, 1), (4, 0, 2), (120, 7)])
def test_equal_seeds_give_the_queries_of_transformers(counts: tuple[int, ...]) -> None:
    targets = objects(*counts)
    labels = [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in targets]
    torch.manual_seed(3)
    ours = draw(targets)
    torch.manual_seed(3)
    classes, boxes, mask, meta = modeling_rt_detr.get_contrastive_denoising_training_group(
        labels, CLASSES, num_queries=6, class_embed=lambda index: index
    )
    assert (ours.labels == classes).all()
    torch.testing.assert_close(inverse_sigmoid(ours.boxes_cxcywh_norm), boxes, rtol=0, atol=1e-5)
    assert ours.num_groups == meta["dn_num_group"]
    assert (ours.block_attention(6) == mask.isinf()).all()
    for image, index in enumerate(meta["dn_positive_idx"]):
        assert ours.matches.query[ours.matches.image == image].tolist() == index.tolist()
