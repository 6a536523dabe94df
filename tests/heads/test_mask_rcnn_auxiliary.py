"""AugFPN's supervision of masks in Mask R-CNN, and the distance from which smooth L1 of regions is linear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_two_stage import SPEC, make_maps, small_head
from torchvision.ops import roi_align

from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, encode_deltas
from boxwright.ops.box_matching import BACKGROUND
from boxwright.regions.mask_branch import mask_targets
from boxwright.regions.sampling import select_positives
from boxwright.structures import Features, Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

AUXILIARY: Spec = {
    **SPEC,
    **{f"{name}_lateral": Level(6, level.stride, auxiliary=True) for name, level in list(SPEC.items())[:2]},
}


def make_all_maps() -> Features:
    maps = make_maps()
    generator = torch.Generator().manual_seed(5)
    for name in list(SPEC)[:2]:
        maps[f"{name}_lateral"] = torch.randn(2, 6, *maps[name].shape[-2:], generator=generator)
    return maps


def make_head(weight: float, spec: Spec = AUXILIARY) -> MaskRCNN:
    head: MaskRCNN = small_head(MaskRCNN, spec, mask={"hidden_dim": 8, "aux_weight": weight})
    return head


def test_the_loss_is_that_of_the_branch_on_every_auxiliary_level(make_targets: MakeTargets) -> None:
    head, targets, maps = make_head(0.25), make_targets([3, 2], size=(128, 128)), make_all_maps()
    output = head(maps, None, targets)
    losses = head.loss(output, targets)
    positive = select_positives(output.stages[0].regions)
    assert head.aux_masks is not None
    expected = mask_targets(positive, targets, 28)
    counts = torch.bincount(positive.images, minlength=2).float()
    total = 0.0
    rows = torch.cat((positive.images[:, None].float(), positive.boxes), 1)
    for name, level in AUXILIARY.items():
        if level.auxiliary:
            features = roi_align(maps[name], rows, 14, 1 / level.stride, sampling_ratio=2)
            logits = head.aux_masks.branch.predict([features], positive.labels)
            entropy = F.binary_cross_entropy_with_logits(logits, expected, reduction="none").mean((1, 2))
            total += float((entropy / counts[positive.images]).sum()) / 2
    assert losses["aux_mask"].item() == pytest.approx(0.25 * total, rel=1e-5)
    losses["aux_mask"].backward()
    for parameter in head.aux_masks.parameters():
        assert parameter.grad is not None
    assert all(parameter.grad is None for parameter in head.masks.parameters())


def test_its_weight_is_a_factor_and_0_leaves_it_out(make_targets: MakeTargets) -> None:
    targets, maps = make_targets([3, 2], size=(128, 128)), make_all_maps()
    heads = [make_head(weight) for weight in (0.25, 1.0)]
    heads[1].load_state_dict(heads[0].state_dict())
    terms = [head.loss(head(maps, None, targets), targets)["aux_mask"].item() for head in heads]
    assert terms[1] == pytest.approx(4 * terms[0], rel=1e-6)
    for head in (make_head(0.0), make_head(0.25, SPEC)):
        assert head.aux_masks is None
        assert "aux_mask" not in head.loss(head(maps, None, targets), targets)


def test_prediction_does_without_it() -> None:
    head, maps = make_head(0.25).eval(), make_all_maps()
    assert head(maps).aux_masks == ()
    plain = make_head(0.0).eval()
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("aux_masks.")})
    with torch.no_grad():
        assert torch.equal(head.decode(head(maps)).boxes, plain.decode(plain(maps)).boxes)


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
@pytest.mark.parametrize("beta", [0.0, 1 / 3, 1.0, None])
def test_smooth_l1_of_regions_is_linear_from_beta(
    kind: type[FasterRCNN] | type[MaskRCNN], beta: float | None, make_targets: MakeTargets
) -> None:
    head = small_head(kind, SPEC, boxes={} if beta is None else {"smooth_l1_beta": beta})
    with torch.no_grad():
        head.boxes.boxes.weight.mul_(300)  # differences on both sides of every beta
    targets = make_targets([3, 2], size=(128, 128))
    output = head(make_maps(), None, targets)
    boxes, regions = output.stages[0]
    (rows,) = torch.where(regions.labels != BACKGROUND)
    expected = encode_deltas(regions.target_boxes[rows], regions.boxes[rows], weights=FAST_RCNN_WEIGHTS)
    difference = (boxes.deltas[rows, regions.labels[rows]] - expected).abs()
    at = 1 / 9 if beta is None else beta
    assert at == 0 or (difference < at).any()
    assert (difference > at).any()
    quadratic = 0.5 * difference**2 / max(at, 1e-9)
    distance = torch.where(difference < at, quadratic, difference - at / 2).sum(-1)
    loss = (distance * regions.weights[rows]).sum() / 2
    assert head.loss(output, targets)["smooth_l1"].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("options", [{"boxes": {"smooth_l1_beta": -0.1}}, {"mask": {"aux_weight": float("nan")}}])
def test_what_is_refused(options: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ValueError, match=r"(smooth_l1_beta|aux_weight) is at least 0, not (-0.1|nan)"):
        small_head(MaskRCNN, SPEC, **options)
