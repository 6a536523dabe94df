"""Distillation in a head: what it teaches, what it counts, and what is there without a teacher."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from boxwright.heads.rtdetr import RTDETR
from boxwright.losses import alignment_loss
from boxwright.queries.distillation import FeatureDistillation
from boxwright.queries.options import DistillationOptions, UnitedSupervisionOptions
from boxwright.structures import Level, LossTotals, Spec, Targets
from part_checks import build

SPEC: Spec = {"c4": Level(8, 16), "c5": Level(8, 32), "c5_attended": Level(6, 32, auxiliary=True)}
OPTIONS = DistillationOptions(
    teacher="any", channels=5, weight=2.0, gradient_fraction=0.2, tolerance=0.05, late_weight=9.0
)


def make_targets(maps: Tensor, sizes: list[tuple[int, int]]) -> list[Targets]:
    boxes, labels = torch.tensor([[4.0, 4.0, 40.0, 30.0]]), torch.tensor([0])
    return [Targets(labels, boxes, size, teacher=one) for one, size in zip(maps, sizes, strict=True)]


def make_head(**distillation: Any) -> RTDETR:
    torch.manual_seed(0)
    options = DistillationOptions(channels=5, **distillation)
    supervision = UnitedSupervisionOptions(class_loss="varifocal", distillation=options)
    return RTDETR(SPEC, 2, hidden_dim=16, num_queries=5, supervision=supervision)


def make_maps(batch: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(1)
    cells = {"c4": (4, 6), "c5": (2, 3), "c5_attended": (2, 3)}
    return {name: torch.randn(batch, SPEC[name].channels, *cells[name]) for name in SPEC}


class TestAlignment:
    def test_angles_alone_count(self) -> None:
        student = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-4.0, 0.0]]).T[None, :, None]
        teacher = torch.tensor([[0.5, 0.0], [7.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).T[None, :, None]
        distances = [0.0, 1.0, 1 - math.sqrt(0.5), 2.0]
        for kept in ([0, 1, 2, 3], [1, 3], [2]):
            valid = torch.zeros(1, 1, 4, dtype=torch.bool)
            valid[..., kept] = True
            expected = sum(distances[i] for i in kept) / len(kept)
            assert alignment_loss(student, teacher, valid).item() == pytest.approx(expected, abs=1e-6)

    def test_nothing_valid_and_vectors_without_length_are_numbers(self) -> None:
        student = torch.zeros(1, 3, 1, 2, requires_grad=True)
        valid = torch.tensor([[[True, False]]])
        loss = alignment_loss(student, torch.ones(1, 3, 1, 2), valid)
        assert loss.item() == 1.0
        assert torch.isfinite(torch.autograd.grad(loss.sum(), student)[0]).all()
        assert alignment_loss(student, torch.ones(1, 3, 1, 2), valid & False).item() == 0.0


class TestFeatureDistillation:
    def test_the_level_before_the_fusion_is_taught_where_it_is_offered(self) -> None:
        assert FeatureDistillation(SPEC, OPTIONS).level == "c5_attended"
        plain = FeatureDistillation({"c3": Level(8, 8), "c4": Level(8, 16)}, OPTIONS)
        assert (plain.level, plain.stride) == ("c4", 16)

    def test_padding_does_not_count(self) -> None:
        distillation, maps = FeatureDistillation(SPEC, OPTIONS), make_maps()
        teacher = torch.randn(2, 5, 2, 3)
        targets = make_targets(teacher, [(64, 96), (33, 64)])
        before = distillation.loss(distillation(maps), targets, LossTotals.of(targets))
        moved = teacher.clone()
        moved[1, :, :, 2] += 3  # beyond 64 pixels; a row that begins at 32 of 33 counts
        targets = make_targets(moved, [(64, 96), (33, 64)])
        assert distillation.loss(distillation(maps), targets, LossTotals.of(targets)).item() == before.item()
        moved[1, :, 1, 1] += 3
        targets = make_targets(moved, [(64, 96), (33, 64)])
        assert distillation.loss(distillation(maps), targets, LossTotals.of(targets)).item() != before.item()

    def test_the_weight_moves_after_a_pass_by_its_mean_fraction(self) -> None:
        distillation = FeatureDistillation(SPEC, OPTIONS)
        for fraction in (0.1, 0.3):  # the mean is right
            distillation.steer(fraction, ends_epoch=fraction == 0.3, is_late=False)
        assert distillation.weight.item() == 2.0
        for fraction in (0.4, 0.6):  # half, where at most a quarter should be: the farther end of the range is .15
            assert distillation.weight.item() == 2.0
            distillation.steer(fraction, ends_epoch=fraction == 0.6, is_late=False)
        assert distillation.weight.item() == pytest.approx(2.0 * 0.15 / 0.85)
        distillation.steer(0.2, ends_epoch=True, is_late=True)
        assert distillation.weight.item() == 9.0
        assert distillation.num_fractions.item() == distillation.fraction_sum.item() == 0.0


class TestHead:
    @pytest.mark.parametrize("name", ["rtdetr", "dfine", "dino", "deformable_detr", "lwdetr"])
    def test_every_head_has_the_term_and_its_gradient(self, name: str) -> None:
        options = {"supervision.distillation.teacher": "any", "supervision.distillation.channels": 5}
        head = build("heads", name, SPEC, 2, **options)
        maps = {key: value.requires_grad_() for key, value in make_maps().items()}
        targets = make_targets(torch.randn(2, 5, 2, 3), [(64, 96)] * 2)
        terms = head.loss(head(maps, None, targets), targets)
        assert terms["distillation"].item() > 0
        gradient = torch.autograd.grad(terms["distillation"], maps["c5_attended"])[0]
        assert gradient.abs().sum().item() > 0

    def test_without_maps_there_is_no_term_and_the_others_are_the_same(self) -> None:
        targets = make_targets(torch.randn(2, 5, 2, 3), [(64, 96)] * 2)
        without = [target._replace(teacher=None) for target in targets]
        head, maps = make_head(teacher="any"), make_maps()
        taught, untaught = (head.loss(head(maps, None, some), some) for some in (targets, without))
        assert taught.keys() - untaught.keys() == {"distillation"}
        plain = make_head().loss(make_head()(maps, None, without), without)
        assert plain.keys() == untaught.keys()
        assert make_head().teacher_maps() is None

    def test_images_of_a_step_may_be_spread(self) -> None:
        head, maps = make_head(teacher="any"), make_maps()
        targets = make_targets(torch.randn(2, 5, 2, 3), [(64, 96), (40, 96)])
        totals = LossTotals.of(targets)
        whole = head.loss(head(maps, None, targets), targets, totals)["distillation"]
        parts = [
            head.loss(
                head({k: v[i : i + 1] for k, v in maps.items()}, None, targets[i : i + 1]), targets[i : i + 1], totals
            )
            for i in range(2)
        ]
        assert sum(part["distillation"].item() for part in parts) == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"gradient_fraction": 0.0}, {"gradient_fraction": 0.995}, {"weight": -1.0}, {"channels": 0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|at least"):
        DistillationOptions(teacher="any", **options)
