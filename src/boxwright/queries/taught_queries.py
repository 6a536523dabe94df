"""The common part of heads of queries that may have auxiliary heads beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.contracts import ClassifyingHead
from boxwright.queries.auxiliary import AuxiliaryGroup, AuxiliaryHeads, Decode
from boxwright.structures import ClassRows, Features, Spec, Targets


class TaughtQueries(nn.Module):
    """Queries that may learn beside auxiliary heads, in training only; a base class.

    Such a head sets ``auxiliary``; None where it has no such heads.
    """

    auxiliary: AuxiliaryHeads | None

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

    def run_auxiliary(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None,
        targets: Sequence[Targets] | None,
        valid_sizes: Float[Tensor, "#b 2"] | None,
        decode: Decode,
    ) -> tuple[AuxiliaryGroup, ...]:
        """Run the auxiliary heads, and decode the queries that begin there; nothing without targets."""
        if self.auxiliary is None or targets is None:
            return ()
        groups: tuple[AuxiliaryGroup, ...] = self.auxiliary(features, padding_mask, targets, valid_sizes, decode)
        return groups
