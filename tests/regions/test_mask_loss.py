"""The loss of masks of regions, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.regions.mask_branch import mask_loss, mask_targets
from boxwright.regions.sampling import SampledRegions
from boxwright.structures import Targets

MakeTargets = Callable[..., list[Targets]]


def regions(boxes: Tensor, images: list[int], objects: list[int]) -> SampledRegions:
    indices, none = torch.tensor(objects), torch.zeros(len(boxes))
    return SampledRegions(boxes, torch.tensor(images), indices, indices * 0, boxes, none, none.bool())


def square() -> Targets:
    """One object, the left half of an image of 8 x 8 pixels."""
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :, :4] = True
    return Targets(torch.tensor([0]), torch.tensor([[0.0, 0, 4, 8]]), (8, 8), masks)


def compute_loss(logits: Tensor, own: SampledRegions, targets: list[Targets], images_per_process: float) -> Tensor:
    return mask_loss(logits, mask_targets(own, targets, logits.shape[-1]), own.images, images_per_process)


def test_targets_are_the_covered_fractions_of_cells() -> None:
    whole, inside = torch.tensor([0.0, 0, 8, 8]), torch.tensor([0.0, 0, 3, 8])
    covered = mask_targets(regions(torch.stack((whole, inside)), [0, 0], [0, 0]), [square()], 4)
    assert torch.equal(covered[1], torch.ones(4, 4))
    # A sample half a pixel before the rim is half object: RoIAlign without a shift by half a cell, as in the original.
    torch.testing.assert_close(covered[0], torch.tensor([1, 0.75, 0, 0]).expand(4, 4))


def test_the_loss_is_a_mean_over_an_images_regions_and_over_images() -> None:
    targets = [square(), square(), square()]
    own = regions(torch.tensor([[0.0, 0, 3, 8]] * 4), [0, 0, 0, 2], [0] * 4)
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None].expand(4, 4, 4)
    loss = compute_loss(logits, own, targets, 3.0)
    each = [math.log1p(math.exp(-value)) for value in (0, 1, 2, 3)]
    assert loss.item() == pytest.approx((sum(each[:3]) / 3 + each[3]) / 3, rel=1e-6)


def test_the_loss_does_not_depend_on_how_images_are_spread(make_targets: MakeTargets) -> None:
    targets = make_targets([2, 3], size=(32, 32))
    own = regions(torch.cat([t.boxes for t in targets]), [0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    logits = torch.randn(5, 7, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = compute_loss(logits, own, targets, 2.0)
    first = SampledRegions(*(field[:2] for field in own))
    second = SampledRegions(*(field[2:] for field in own))._replace(images=torch.zeros(3, dtype=torch.int64))
    parts = compute_loss(logits[:2], first, targets[:1], 2.0) + compute_loss(logits[2:], second, targets[1:], 2.0)
    torch.testing.assert_close(whole, parts)
    (gradient,) = torch.autograd.grad(whole, logits)
    covered = mask_targets(own, targets, 7)
    counts = torch.tensor([2, 2, 3, 3, 3.0])[:, None, None]
    torch.testing.assert_close(gradient, (logits.sigmoid() - covered).detach() / (49 * counts * 2))


def test_half_precision_logits_are_raised(make_targets: MakeTargets) -> None:
    targets = make_targets([1], size=(32, 32))
    own = regions(targets[0].boxes, [0], [0])
    logits = torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = compute_loss(logits, own, targets, 1.0)
    assert loss.dtype == torch.float32
    expected = F.binary_cross_entropy_with_logits(logits.float(), mask_targets(own, targets, 28))
    torch.testing.assert_close(loss, expected)
