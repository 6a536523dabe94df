"""Distillation: a level that learns to point where the map of a large frozen model points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.losses import alignment_loss
from boxwright.queries.options import DistillationOptions
from boxwright.structures import Features, LossTotals, Spec, Targets, TeacherMaps, main_levels


class FeatureDistillation(nn.Module):
    """Projection of a level to the width of a teacher's map, and the weight of its loss, which may be steered.

    The level is the coarsest auxiliary one, as what attends in ``hybrid_encoder`` before the fusion; the coarsest of
    all where there is none. ``weight`` and what it is steered by are buffers: a resumed run goes on with them.

    Args:
        in_spec: the levels that come in, fine to coarse.
        options: the teacher, and the weight.

    Source: Liao et al., RT-DETRv4, 2025: the deep semantic injector (here ``projection``) and gradient-guided adaptive
    modulation (``steer``). Checked against RT-DETRs/RT-DETRv4 df44122: loss, gradients, weights over epochs. Differs in
    steering the weight in all processes, where theirs steers that of the first alone.
    """

    weight: Float[Tensor, ""]
    fraction_sum: Float[Tensor, ""]
    num_fractions: Float[Tensor, ""]

    def __init__(self, in_spec: Spec, options: DistillationOptions) -> None:
        super().__init__()
        auxiliary = [name for name, level in in_spec.items() if level.auxiliary]
        self.options, self.level = options, (auxiliary or list(main_levels(in_spec)))[-1]
        self.stride = in_spec[self.level].stride
        self.projection = nn.Linear(in_spec[self.level].channels, options.channels)
        self.register_buffer("weight", torch.tensor(options.weight))
        self.register_buffer("fraction_sum", torch.tensor(0.0))
        self.register_buffer("num_fractions", torch.tensor(0.0))

    @property
    def maps(self) -> TeacherMaps:
        """The maps that targets have to have."""
        assert self.options.teacher is not None
        return TeacherMaps(self.options.teacher, self.options.weights, self.options.channels, self.stride)

    def forward(self, features: Features) -> Float[Tensor, "b c y x"]:
        projected: Tensor = self.projection(features[self.level].permute(0, 2, 3, 1))
        return projected.permute(0, 3, 1, 2)

    def loss(
        self, student: Float[Tensor, "b c y x"], targets: Sequence[Targets], totals: LossTotals
    ) -> Float[Tensor, ""]:
        """Compute the weighted loss, an average over the images of the step.

        Args:
            student: of ``forward``.
            targets: one per image, with the teacher's maps.
            totals: of the whole optimizer step.
        """
        teacher = torch.stack([target.teacher for target in targets if target.teacher is not None])
        distances = alignment_loss(student, teacher, self._valid_cells(targets, student))
        return self.weight * distances.sum() / totals.images_per_process

    def _valid_cells(self, targets: Sequence[Targets], student: Tensor) -> Bool[Tensor, "b y x"]:
        sizes = torch.tensor([target.size for target in targets], device=student.device)
        rows, columns = (torch.arange(side, device=student.device) * self.stride for side in student.shape[-2:])
        return (rows[:, None] < sizes[:, :1, None]) & (columns < sizes[:, 1:, None])

    @torch.no_grad()
    def steer(self, fraction: float, *, ends_epoch: bool, is_late: bool) -> None:
        """Take note of a step, and after a pass over the data set the weight that the next one has.

        Args:
            fraction: of the gradient that steers, in [0, 1].
            ends_epoch: the step was the last of a pass.
            is_late: strong augmentation had ended before this pass.
        """
        self.fraction_sum += fraction
        self.num_fractions += 1
        if ends_epoch:
            mean = float(self.fraction_sum / self.num_fractions)
            self.weight.fill_(steer_weight(float(self.weight), mean, self.options, is_late=is_late))
            self.fraction_sum.zero_()
            self.num_fractions.zero_()


def steer_weight(weight: float, fraction: float, options: DistillationOptions, *, is_late: bool = False) -> float:
    """Return the weight of distillation that would have brought a fraction of the gradient to where it should be.

    It grows with the weight w as if all of it came from distillation: w' = w p' (1 - p) / (p (1 - p')), where p' is
    the end of the expected range that is farther from the fraction p; at most ten times as much or as little.

    Args:
        weight: so far.
        fraction: of the gradient, in [0, 1], an average over a pass over the data.
        options: what it should be.
        is_late: strong augmentation has ended: the weight is the last one then.
    """
    if options.gradient_fraction is None:
        return weight
    if fraction < 1e-8 or is_late:
        return options.late_weight
    low, high = options.gradient_fraction - options.tolerance, options.gradient_fraction + options.tolerance
    if low <= fraction <= high or weight <= 1e-6:
        return weight
    expected = high if fraction < low else low
    ratio = expected * (1 - fraction) / (fraction * (1 - expected))
    return weight * min(max(ratio, 0.1), 10.0)
