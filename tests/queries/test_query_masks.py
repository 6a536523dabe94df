"""Masks of queries: the branch, points, costs and losses, written out in plain steps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.queries.mask_branch import MaskFactors, QueryMaskBranch, multiply
from boxwright.queries.mask_losses import compute_mask_losses
from boxwright.queries.mask_points import (
    MaskPoints,
    MaskTargets,
    compute_mask_costs,
    draw_mask_points,
    make_mask_targets,
)
from boxwright.queries.mask_products import multiply_by_image
from boxwright.queries.matching import Matches
from boxwright.structures import Targets

SIZE = (40, 64)


def make_branch(*, num_layers: int = 3, stride: int = 8) -> QueryMaskBranch:
    torch.manual_seed(0)
    branch = QueryMaskBranch(8, num_layers, stride).double()
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return branch


def make_masks(*, images: int = 2, queries: int = 6) -> tuple[MaskFactors, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    finest = torch.randn(images, 8, 5, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    contents = torch.randn(3, images, queries, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return make_branch()(finest, contents, 3), finest, contents


def all_logits(masks: MaskFactors, layer: int, image: int) -> Tensor:
    cells = masks.maps[layer][image].movedim(0, -1)
    return multiply(masks.queries[layer, image], cells, masks.offsets[layer, image]).detach()


@pytest.mark.parametrize(("hidden_dim", "num_layers", "parameters"), [(192, 4, 527_809), (256, 6, 1_070_849)])
def test_has_the_parameters_of_the_published_ones(hidden_dim: int, num_layers: int, parameters: int) -> None:
    branch = QueryMaskBranch(hidden_dim, num_layers, 8)
    assert sum(parameter.numel() for parameter in branch.parameters()) == parameters


@pytest.mark.parametrize(("stride", "cells"), [(8, (10, 16)), (4, (5, 8)), (2, (3, 4)), (32, (40, 64))])
def test_masks_are_of_cells_of_four_pixels(stride: int, cells: tuple[int, int]) -> None:
    finest, contents = torch.randn(2, 8, 5, 8).double(), torch.randn(1, 2, 6, 8).double()
    masks = make_branch(stride=stride)(finest, contents, 3)
    assert masks.maps[0].shape[-2:] == cells
    assert masks.size == (5 * stride, 8 * stride)
    boxes = torch.zeros(2, 7, 4)
    assert masks.regions(boxes).unique(dim=1).tolist() == [[[0, 0, 8 * stride, 5 * stride]]] * 2


def test_the_last_layer_alone_sees_every_block() -> None:
    """In prediction only one layer predicts, and fewer may run."""
    masks, finest, contents = make_masks()
    queries = torch.tensor([[5, 0, 5], [1, 2, 3]])
    for num_layers in (3, 2):
        alone = make_branch()(finest, contents[num_layers - 1 :][:1], num_layers)
        assert len(alone.maps) == 1
        expected = [all_logits(masks, num_layers - 1, image)[queries[image]].sigmoid() for image in range(2)]
        torch.testing.assert_close(alone.probabilities(queries), torch.stack(expected))


def test_counts_as_published_with_the_same_masks() -> None:
    masks, finest, contents = make_masks()
    branch = make_branch()
    branch.count_as_published = True
    torch.testing.assert_close(all_logits(branch(finest, contents, 3), 1, 1), all_logits(masks, 1, 1))


def test_splits_off_noised_queries() -> None:
    masks, _, _ = make_masks()
    noised, others = masks.split(2)
    whole = all_logits(masks, 2, 0)
    torch.testing.assert_close(all_logits(noised, 2, 0), whole[:2])
    torch.testing.assert_close(all_logits(others, 2, 0), whole[2:])


def make_targets(counts: tuple[int, ...]) -> list[MaskTargets]:
    """Rectangles, one of all the image, one in a corner; images of two sizes on one padded input."""
    targets = []
    for image, count in enumerate(counts):
        size = (SIZE[0] - 8 * (image % 2), SIZE[1] - 12 * (image % 2))
        masks = torch.zeros(count, *SIZE, dtype=torch.bool)
        for i in range(count):
            masks[i, : size[0] // (i + 1), : size[1] // (i + 1)] = True
        points = draw_mask_points(count, size, seed=7 + image)
        targets.append(MaskTargets(masks, size, MaskPoints(*(one.double() for one in points))))
    return targets


def value_at(logits: Tensor, x: float, y: float, covered: tuple[int, int]) -> float:
    """Bilinear by hand; (x, y) in pixels of the network input."""
    rows, columns = logits.shape
    row = min(max(y * rows / covered[0] - 0.5, 0), rows - 1)
    column = min(max(x * columns / covered[1] - 0.5, 0), columns - 1)
    above, left = int(row), int(column)
    below, right = min(above + 1, rows - 1), min(left + 1, columns - 1)
    down, across = row - above, column - left
    upper = float(logits[above, left]) * (1 - across) + float(logits[above, right]) * across
    lower = float(logits[below, left]) * (1 - across) + float(logits[below, right]) * across
    return upper * (1 - down) + lower * down


def compare_by_hand(logits: Tensor, mask: Tensor, points: Tensor, target: MaskTargets) -> tuple[float, float]:
    """Mean cross entropy and dice loss of one mask at points, in plain Python."""
    height, width = target.size
    entropy = both = predicted = covered = 0.0
    for x, y in points.tolist():
        value = value_at(logits, x * width, y * height, SIZE)
        label = float(mask[int(y * height), int(x * width)])
        p = 1 / (1 + math.exp(-value))
        entropy -= math.log(p if label else 1 - p)
        both, predicted, covered = both + p * label, predicted + p, covered + label
    return entropy / len(points), 1 - (2 * both + 1) / (predicted + covered + 1)


def test_costs() -> None:
    masks, _, _ = make_masks()
    for image, target in enumerate(make_targets((3, 2))):
        entropy, dice = compute_mask_costs(masks, image, target)
        assert entropy.shape == dice.shape == (3, 6, len(target.masks))
        for layer, query, i in ((0, 0, 0), (1, 5, 1), (2, 3, len(target.masks) - 1)):
            logits = all_logits(masks, layer, image)[query]
            expected = compare_by_hand(logits, target.masks[i], target.points.matching, target)
            assert entropy[layer, query, i].item() == pytest.approx(expected[0], rel=1e-9)
            assert dice[layer, query, i].item() == pytest.approx(expected[1], rel=1e-9)


def test_losses_are_of_the_most_uncertain_points_and_of_others() -> None:
    masks, _, _ = make_masks(images=3)
    targets = make_targets((3, 2, 2))  # the first and the last have as many points
    pairs = [(0, 0, 4, 1), (0, 2, 2, 6), (0, 0, 0, 2), (0, 1, 3, 4), (2, 1, 5, 3), (2, 2, 0, 5), (3, 0, 1, 0)]
    matches = Matches(*torch.tensor(pairs).t())
    entropy, dice = compute_mask_losses(masks, matches, targets, 2.5)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for layer, image, query, thing in pairs[:-1]:  # there are no masks of a layer beyond the last
        target, own = targets[image], thing - (0, 3, 5)[image]
        height, width = target.size
        logits = all_logits(masks, layer, image)[query]
        candidates = target.points.candidates[own].tolist()
        assert len(candidates) == 3 * len(target.points.matching)
        candidates.sort(key=lambda point: abs(value_at(logits, point[0] * width, point[1] * height, SIZE)))
        points = torch.tensor(
            candidates[: int(0.75 * len(target.points.matching))] + target.points.others[own].tolist()
        )
        assert len(points) == len(target.points.matching)
        expected[:, layer] += torch.tensor(compare_by_hand(logits, target.masks[own], points.double(), target))
    torch.testing.assert_close(torch.stack((entropy, dice)), expected / 2.5)
    assert (expected[:, 1] == 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_masks_of_several_images_at_once(layout: torch.memory_format) -> None:
    """Two groups of three images, of which one has no query in the first, and none has any in the second but two."""
    torch.manual_seed(2)
    sizes = (2, 0, 3, 1, 2, 0)
    maps = torch.randn(3, 4, 3, 5).double().contiguous(memory_format=layout).requires_grad_()
    queries, offsets = torch.randn(8, 4).double().requires_grad_(), torch.randn(8).double().requires_grad_()
    images = [0, 0, 2, 2, 2, 0, 1, 1]
    expected = torch.einsum("nd,ndhw->nhw", queries, maps[images]) + offsets[:, None, None]
    torch.testing.assert_close(multiply_by_image(queries, maps, offsets, sizes), expected)
    inputs = (queries, maps, offsets)
    assert torch.autograd.gradcheck(lambda *own: multiply_by_image(*own, sizes), inputs)
    assert multiply_by_image(queries[:0], maps, offsets[:0], (0,) * 6).shape == (0, 3, 5)


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_every_parameter_has_a_gradient_without_objects(counts: tuple[int, int]) -> None:
    """Processes would wait for it otherwise."""
    branch = make_branch()
    masks = branch(torch.randn(2, 8, 5, 8).double(), torch.randn(3, 2, 6, 8).double(), 3)
    matches = Matches(*torch.zeros(4, 0, dtype=torch.int64))
    entropy, dice = compute_mask_losses(masks, matches, make_targets(counts), 1.0)
    assert entropy.tolist() == dice.tolist() == [0, 0, 0]
    (entropy.sum() + dice.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in branch.parameters())


def test_points_belong_to_the_image() -> None:
    """The same for a seed, however large its batch is padded; as many as a sixteenth of the cells."""
    target = Targets(
        torch.tensor([1, 1]), torch.zeros(2, 4), (36, 64), torch.zeros(2, 36, 64, dtype=torch.bool), seed=3
    )
    first = make_mask_targets(target).points
    padded = target._replace(masks=F.pad(target.masks, (0, 32, 0, 8)))
    assert all(a.equal(b) for a, b in zip(first, make_mask_targets(padded).points, strict=True))
    assert not first.matching.equal(make_mask_targets(target._replace(seed=4)).points.matching)
    assert [tuple(one.shape) for one in first] == [(9, 2), (2, 27, 2), (2, 3, 2)]
    assert first.num_uncertain == 6
    assert len(draw_mask_points(0, (640, 480)).matching) == 1200
    assert len(draw_mask_points(0, (640, 32)).matching) == 160


def test_targets_without_masks_are_refused() -> None:
    target = Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (36, 64))
    assert make_mask_targets(target).masks.shape == (0, 36, 64)
    with pytest.raises(ValueError, match="trained on masks, and the targets have none"):
        make_mask_targets(target._replace(labels=torch.tensor([1]), boxes=torch.zeros(1, 4)))
