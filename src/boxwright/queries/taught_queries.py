"""The common part of heads of queries that may have teachers beside them: auxiliary heads, a large frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.contracts import ClassifyingHead
from boxwright.queries.auxiliary import AuxiliaryGroup, AuxiliaryHeads, Decode
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.distillation import FeatureDistillation
from boxwright.queries.matching import NormalizedTargets
from boxwright.queries.options import SupervisionOptions
from boxwright.structures import ClassRows, Features, LossTotals, Spec, Targets, TeacherMaps


class Taught(NamedTuple):
    """Predictions of teachers: groups of auxiliary heads, and features for the map of a frozen model."""

    groups: Sequence[AuxiliaryGroup] = ()
    student: Float[Tensor, "b c y x"] | None = None


@runtime_checkable
class TaughtOutput(Protocol):
    """Output of a head that may have teachers."""

    @property
    def taught(self) -> Taught: ...


class TaughtQueries(nn.Module):
    """Queries that may learn beside auxiliary heads, from features that a teacher sees, in training only; a base class.

    Such a head calls ``build_teachers``, puts ``teach`` in its output and adds ``taught_losses``.
    """

    auxiliary: AuxiliaryHeads | None
    distillation: FeatureDistillation | None

    def build_teachers(
        self,
        in_spec: Spec,
        hidden_dim: int,
        num_heads: int,
        supervision: SupervisionOptions,
        *,
        with_positions: bool,
    ) -> None:
        """Build what the options name; the heads themselves come by ``add_auxiliary``.

        Args:
            in_spec: the levels that come in, fine to coarse.
            hidden_dim: width of the decoder's queries.
            num_heads: of the decoder's self-attention.
            supervision: the options.
            with_positions: queries have positions of their own; see ``AuxiliaryHeads``.
        """
        self.auxiliary = self.distillation = None
        if supervision.auxiliary:
            self.auxiliary = AuxiliaryHeads(in_spec, hidden_dim, num_heads, supervision, with_positions=with_positions)
        if supervision.distillation.teacher is not None:
            self.distillation = FeatureDistillation(in_spec, supervision.distillation)

    def auxiliary_options(self) -> Mapping[str, Mapping[str, Any]]:
        """List the auxiliary heads, by their names, with their options; nothing where there are none."""
        return {} if self.auxiliary is None else self.auxiliary.options.auxiliary_options()

    def auxiliary_spec(self) -> Spec:
        """List the levels that they get."""
        return {} if self.auxiliary is None else self.auxiliary.spec

    def add_auxiliary(self, heads: Mapping[str, nn.Module]) -> None:
        """Add them by their names, built for these levels and the same classes.

        Raises:
            ValueError: they are not those that the options name, or one has no candidates.
        """
        if self.auxiliary is None or list(heads) != list(self.auxiliary_options()):
            raise ValueError(f"auxiliary heads are those that supervision.auxiliary names, not {list(heads)}")
        self.auxiliary.add(heads)

    def count_auxiliary(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> tuple[float, ...]:
        """Count what their losses are divided by: matches and the sum of their weights, head by head."""
        return () if self.auxiliary is None else self.auxiliary.count_matches(targets, input_size)

    def auxiliary_rows(self) -> dict[str, ClassRows]:
        """Name the layers of the auxiliary heads with a row for each class."""
        heads = () if self.auxiliary is None else self.auxiliary.heads.items()
        return {
            f"auxiliary.heads.{name}.{path}": rows
            for name, head in heads
            if isinstance(head, ClassifyingHead)
            for path, rows in head.class_rows().items()
        }

    def teach(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None,
        targets: Sequence[Targets] | None,
        valid_sizes: Float[Tensor, "#b 2"] | None,
        decode: Decode,
    ) -> Taught:
        """Run the auxiliary heads, and decode the queries that begin there; project features for the teacher's map.

        Nothing without targets, nor of the teacher's without its maps in them.
        """
        groups, student = (), None
        if self.auxiliary is not None and targets is not None:
            groups = self.auxiliary(features, padding_mask, targets, valid_sizes, decode)
        if self.distillation is not None and targets is not None and targets[0].teacher is not None:
            student = self.distillation(features)
        return Taught(groups, student)

    def taught_losses(
        self,
        output: TaughtOutput,
        targets: Sequence[Targets],
        normalized: Sequence[NormalizedTargets],
        totals: LossTotals | None,
        criterion: SetCriterion,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of auxiliary heads and of distillation.

        Args:
            output: of this head.
            targets: one per image.
            normalized: the same.
            totals: of the whole optimizer step; of these targets where None.
            criterion: of the decoder's predictions.
        """
        terms: dict[str, Tensor] = {}
        if self.auxiliary is not None:
            terms |= self.auxiliary.losses(output.taught.groups, targets, normalized, totals, criterion)
        if self.distillation is not None and output.taught.student is not None:
            whole = totals or LossTotals.of(targets)
            terms["distillation"] = self.distillation.loss(output.taught.student, targets, whole)
        return terms

    def teacher_maps(self) -> TeacherMaps | None:
        """Return the maps that targets have to have for distillation; None without."""
        return None if self.distillation is None else self.distillation.maps

    @property
    def steers_distillation(self) -> bool:
        """Tell whether the weight of distillation depends on gradients."""
        return self.distillation is not None and self.distillation.options.gradient_fraction is not None

    def steer_distillation(self, fraction: float, *, ends_epoch: bool, is_late: bool) -> None:
        """Take note of a step; see ``FeatureDistillation.steer``."""
        if self.distillation is not None:
            self.distillation.steer(fraction, ends_epoch=ends_epoch, is_late=is_late)
