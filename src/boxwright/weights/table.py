"""Tables of names: the tensors of another project and ours, in both directions.

A row is a template of their name, one of ours, and the operation between. Every tensor is taken by exactly one row, or
skipped by name with a reason: what is left over, and what two rows take, is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.weights.operations import COPY, Operation
from boxwright.weights.template import Template

COUNTER = "num_batches_tracked"
"""Of batch norms, and nothing that a prediction depends on: frozen norms have none, and older files none at all."""

SHOWN = 3
"""Names in an error, of many."""


class TableError(ValueError):
    """Names or shapes that a table does not explain."""


@dataclass(frozen=True)
class Row:
    """One kind of tensor.

    Args:
        theirs: template of its name in the other project, or of several that make one of ours.
        ours: template of its name here.
        operation: from theirs to ours.
    """

    theirs: str | tuple[str, ...]
    ours: str
    operation: Operation = COPY

    @property
    def their_names(self) -> tuple[str, ...]:
        """The templates of their names, also of one."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True)
class Tie:
    """Tensors of ours that are one with another in the other project, which stores that one alone.

    Args:
        ours: template of their names.
        other: template of the name of that one, also ours, by the same fields.
    """

    ours: str
    other: str


@dataclass(frozen=True)
class Constant:
    """Tensors of ours that the other project does not have, because they would have one value everywhere.

    Args:
        ours: template of their names.
        value: of every element: 0 for the bias of a convolution that has none.
    """

    ours: str
    value: float


@dataclass(frozen=True)
class Skip:
    """Tensors of the other project that have no counterpart here, or ours that have none there.

    Args:
        names: template of the names.
        reason: for people to read.
        before_rows: skip those of theirs too that a row matches.
    """

    names: str
    reason: str
    before_rows: bool = False


@dataclass(frozen=True)
class Split:
    """A tensor of the other project that is several here, one after another along the first dimension.

    Rows call its parts by its name and their number: ``query_feat.weight.0`` and so on.

    Args:
        name: of the tensor there.
        count: of its parts, which are equal.
    """

    name: str
    count: int

    @property
    def parts(self) -> list[str]:
        """Names of its parts."""
        return [f"{self.name}.{i}" for i in range(self.count)]


class Converted(NamedTuple):
    """Tensors by our names, or theirs; and the names that were skipped, with the reason."""

    tensors: dict[str, Tensor]
    skipped: dict[str, str]


@dataclass(frozen=True)
class Table:
    """The names of one kind of model.

    Args:
        rows: kinds of tensors.
        skips: theirs that ours has no use for.
        own: ours that theirs does not have: what they start from is computed, or of no use to predictions.
        ties: ours that are no tensors of their own there.
        constants: ours that theirs does not have, with their value.
        splits: theirs that are several of ours; rows are of their parts.
    """

    rows: Sequence[Row]
    skips: Sequence[Skip] = ()
    own: Sequence[Skip] = ()
    ties: Sequence[Tie] = ()
    constants: Sequence[Constant] = ()
    splits: Sequence[Split] = ()

    def locate(self, names: Iterable[str]) -> dict[str, str]:
        """List our names that theirs lead to, each with the first of theirs; what is wrong with them is ignored."""
        taken, _, _ = self._assign(names)
        return {ours: next(iter(parts.values())) for (_, ours), parts in taken.items()}

    def read(self, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Converted:
        """Bring their tensors to our names and forms.

        Args:
            tensors: theirs.
            expected: ours, for names and shapes.

        Raises:
            TableError: a tensor that no row explains, or two, or that has another shape, or that is missing.
        """
        tensors = self._cut(tensors)
        taken, skipped, problems = self._assign(tensors)
        converted: dict[str, Tensor] = {}
        sources: dict[str, str] = {}
        for (index, name), parts in taken.items():
            row = self.rows[index]
            if name in sources:
                problems.append(f"{name} is made of {sources[name]} and of {next(iter(parts.values()))}")
                continue
            sources[name] = next(iter(parts.values()))
            if name not in expected:
                if name.endswith(COUNTER):
                    skipped |= dict.fromkeys(parts.values(), "the norm is frozen here, and counts nothing")
                else:
                    problems.append(f"{sources[name]} has no counterpart here ({name})")
                continue
            try:
                converted[name] = _read_row(row, parts, tensors)
            except ValueError as error:
                problems.append(f"{sources[name]}: {error}")
        self._add_implied(converted, sources, expected)
        problems += _differences(converted, expected, sources, {*sources, *_matching(self.own, expected)})
        if problems:
            raise TableError(join_problems(problems))
        return Converted(converted, skipped)

    def write(self, tensors: Mapping[str, Tensor]) -> Converted:
        """Bring our tensors to their names and forms.

        Raises:
            TableError: a tensor that no row explains, or two, or that cannot be brought to their form.
        """
        converted: dict[str, Tensor] = {}
        skipped = _matching(self.own, tensors)
        implied: dict[str, str | float] = {**self._tied(tensors), **self._constant(tensors)}
        problems: list[str] = []
        templates = [(row, Template(row.ours)) for row in self.rows]
        for name, tensor in tensors.items():
            candidates = [(row, fields) for row, at in templates if (fields := at.match(name)) is not None]
            if name in skipped and not candidates:
                continue
            if name in implied:
                problems += _check_implied(name, tensors, implied[name])
                continue
            if len(candidates) != 1:
                problems.append(
                    f"{name} is in {len(candidates)} rows" if candidates else f"{name} has no counterpart there"
                )
                continue
            row, fields = candidates[0]
            try:
                parts = row.operation.write(tensor, len(row.their_names))
            except ValueError as error:
                problems.append(f"{name}: {error}")
                continue
            for template, part in zip(row.their_names, parts, strict=True):
                converted[Template(template).fill(fields)] = part
        if problems:
            raise TableError(join_problems(problems))
        for split in self.splits:
            if split.parts[0] in converted:
                converted[split.name] = torch.cat([converted.pop(part) for part in split.parts])
        return Converted(converted, skipped)

    def _cut(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Cut theirs that are several here into parts."""
        result = dict(tensors)
        for split in self.splits:
            whole = result.pop(split.name, None)
            if whole is None:
                continue
            if not whole.ndim or len(whole) % split.count:
                raise TableError(f"{split.name} is {list(whole.shape)}, and should be {split.count} equal parts")
            result |= zip(split.parts, whole.chunk(split.count), strict=True)
        return result

    def _add_implied(
        self, converted: dict[str, Tensor], sources: dict[str, str], expected: Mapping[str, Tensor]
    ) -> None:
        """Add ours that theirs does not store: copies of others, and constants."""
        for name, other in self._tied(expected).items():
            if name not in sources and other in converted:
                converted[name], sources[name] = converted[other], sources[other]
        for name, value in self._constant(expected).items():
            if name not in sources:
                converted[name], sources[name] = torch.full_like(expected[name], value, device="cpu"), "a constant"

    def _constant(self, names: Iterable[str]) -> dict[str, float]:
        """List the names of ours that have one value there, and the value."""
        templates = [(Template(constant.ours), constant.value) for constant in self.constants]
        return {name: value for name in names for at, value in templates if at.match(name) is not None}

    def _tied(self, names: Iterable[str]) -> dict[str, str]:
        """List the names of ours that are one with another there, and these others."""
        templates = [(Template(tie.ours), Template(tie.other)) for tie in self.ties]
        matches = ((name, at.match(name), other) for name in names for at, other in templates)
        others = {name: other.fill(fields) for name, fields, other in matches if fields is not None}
        return {name: other for name, other in others.items() if name != other}

    def _assign(self, names: Iterable[str]) -> tuple[dict[tuple[int, str], dict[int, str]], dict[str, str], list[str]]:
        """Find the row of each of their names.

        Returns:
            By row and our name, the names of its parts; the skipped names with the reason; and problems.
        """
        templates = [
            (index, part, Template(text))
            for index, row in enumerate(self.rows)
            for part, text in enumerate(row.their_names)
        ]
        skips = _matching(self.skips, names)
        first = _matching([skip for skip in self.skips if skip.before_rows], names)
        taken: dict[tuple[int, str], dict[int, str]] = defaultdict(dict)
        problems: list[str] = []
        for name in names:
            if name in first:
                continue
            candidates = [(i, part, fields) for i, part, at in templates if (fields := at.match(name)) is not None]
            if len(candidates) + (name in skips) > 1:
                rows = [self.rows[i].ours for i, _, _ in candidates] + [skips[name] for _ in range(name in skips)]
                problems.append(f"{name} is explained {len(rows)} times: {' and '.join(rows)}")
            elif candidates:
                ((index, part, fields),) = candidates
                taken[index, Template(self.rows[index].ours).fill(fields)][part] = name
            elif name not in skips:
                problems.append(f"{name} is unknown")
        return taken, skips, problems


def join_problems(problems: Sequence[str]) -> str:
    """Put the first problems into one line, and count the others."""
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def _check_implied(name: str, tensors: Mapping[str, Tensor], implied: str | float) -> list[str]:
    """List what is wrong with one of ours that theirs would not store: it differs from another, or a constant."""
    if isinstance(implied, float):
        is_so = bool((tensors[name] == implied).all())
        return [] if is_so else [f"{name} is not {implied:g} everywhere, which has no counterpart there"]
    is_so = implied in tensors and torch.equal(tensors[name], tensors[implied])
    return [] if is_so else [f"{name} differs from {implied}, and they are one there"]


def _read_row(row: Row, parts: Mapping[int, str], tensors: Mapping[str, Tensor]) -> Tensor:
    if row.operation.needs_all and len(parts) < len(row.their_names):
        raise ValueError(f"only {len(parts)} of {len(row.their_names)} tensors that belong together are there")
    return row.operation.read([tensors[parts[part]] for part in sorted(parts)])


def _differences(
    converted: Mapping[str, Tensor], expected: Mapping[str, Tensor], sources: Mapping[str, str], explained: set[str]
) -> list[str]:
    problems = [
        f"{sources[name]} is {list(tensor.shape)} and should be {list(expected[name].shape)}"
        for name, tensor in converted.items()
        if tensor.shape != expected[name].shape
    ]
    missing = [name for name in expected if name not in explained and not name.endswith(COUNTER)]
    return problems + [f"nothing there makes {name}" for name in missing]


def _matching(skips: Sequence[Skip], names: Iterable[str]) -> dict[str, str]:
    """List the names that are skipped, with the reason."""
    templates = [(Template(skip.names), skip.reason) for skip in skips]
    return {name: reason for name in names for at, reason in templates if at.match(name) is not None}
