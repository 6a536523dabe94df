"""Comparisons with other projects: one function asserts and measures, so that no number stands without an assertion.

A test of a module or function that is marked ``conforms(part, project)`` measures that part of Boxwright against that
project. ``make conformance`` keeps what such tests measured in docs/conformance.json, of which ``make tables`` makes
docs/conformance.md; all other runs assert the same, and keep nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from boxwright.structures import Targets
from originals import ORIGINALS, name_project

STORED = Path(__file__).parents[1] / "docs" / "conformance.json"

Kind = Literal["outputs", "assignment", "loss terms", "gradients", "post-processing", "20 training steps"]
Unit = Literal["absolute", "relative", "pixels", "different"]
Numbers = Tensor | np.ndarray


@dataclass(frozen=True, order=True)
class Quantity:
    """Something that differs by a number.

    Args:
        kind: what of a detector it is.
        name: which outputs or losses; empty where the kind says all.
        precision: of the numbers, of Boxwright first where both sides have another one.
        unit: of the difference.
    """

    kind: Kind
    name: str
    precision: str
    unit: Unit


@dataclass
class Case:
    """Measurements of one test with one set of its parameters.

    Args:
        test: with its parameters.
        part: of Boxwright, as docs/systems.yaml names it.
        peer: kind of project.
        project: with its version or commit.
        stored: whether its numbers were made earlier, with the code of that commit.
        inputs: shapes of images or maps, and the number of objects.
        versions: of what ran beside.
        differences: the largest of each quantity.
    """

    test: str
    part: str
    peer: str
    project: str
    stored: bool
    inputs: list[str] = field(default_factory=list)
    versions: str = ""
    differences: dict[Quantity, float] = field(default_factory=dict)

    def add(self, quantity: Quantity, difference: float) -> None:
        """Keep a difference if it is the largest so far."""
        self.differences[quantity] = max(difference, self.differences.get(quantity, 0.0))

    def to_json(self) -> dict[str, Any]:
        """Convert into what is stored: two digits of each difference."""
        rows = [[*vars(quantity).values(), float(f"{value:.1e}")] for quantity, value in self.differences.items()]
        return vars(self) | {"differences": sorted(rows)}


_cases: list[Case] = []


@contextmanager
def measure(test: str, part: str, project: str, *, live: bool = False) -> Iterator[Case]:
    """Collect what is compared inside of this context.

    Args:
        test: that compares.
        part: of Boxwright, as docs/systems.yaml names it.
        project: a name in ``ORIGINALS``, or an installed package.
        live: whether a repository runs beside, and its numbers are not stored ones.
    """
    peer, title = name_project(project)
    stored = project in ORIGINALS and not live
    case = Case(test, part, peer, title, stored, versions=f"torch {torch.__version__.partition('+')[0]}")
    _cases.append(case)
    try:
        yield case
    finally:
        _cases.remove(case)


def describe_inputs(*batches: Tensor | Sequence[Tensor], targets: Sequence[Targets] | None = None) -> str:
    """Describe what was put in: the shapes of images or maps, and how many objects each image has."""
    tensors = [one for batch in batches for one in ([batch] if isinstance(batch, Tensor) else batch)]
    shapes = list(dict.fromkeys(" × ".join(map(str, (len(x), *x.shape[-2:]))) for x in tensors))
    shapes = [f"{shapes[0]} to {shapes[-1]}"] if len(shapes) > 2 else shapes
    objects = "" if targets is None else f"; objects: {', '.join(str(len(one.labels)) for one in targets)}"
    return ", ".join(shapes) + objects


def note_inputs(*batches: Tensor | Sequence[Tensor], targets: Sequence[Targets] | None = None) -> None:
    """Keep the description of inputs beside what is measured on them."""
    for case in _cases:
        text = describe_inputs(*batches, targets=targets)
        case.inputs += [] if text in case.inputs else [text]


def compare(
    kind: Kind,
    difference: float,
    limit: float,
    *,
    name: str = "",
    of: str = "",
    unit: Unit = "relative",
    precision: str = "float64",
) -> None:
    """Assert that a difference is within its limit, and measure it.

    Args:
        kind: what of a detector it is.
        difference: of both sides.
        limit: largest that is allowed.
        name: which outputs or losses.
        of: the tensor that it is the difference of, for the message alone.
        unit: of both numbers.
        precision: of the numbers, of Boxwright first where both sides have another one.
    """
    __tracebackhide__ = True
    assert math.isfinite(difference), f"{kind} {name} {of}: not a number"
    assert difference <= limit, f"{kind} {name} {of}: {difference:.1e} {unit}, at most {limit:.1e}"
    for case in _cases:
        case.add(Quantity(kind, name, precision, unit), difference)


def compare_tensors(
    kind: Kind,
    ours: Tensor,
    theirs: Numbers,
    *,
    limit: float,
    relative: float = 0.0,
    name: str = "",
    of: str = "",
    unit: Unit = "absolute",
) -> None:
    """Compare two tensors by their largest difference; other arguments are those of ``compare``.

    Args:
        kind: what of a detector it is.
        ours: of any shape.
        theirs: of the same shape.
        limit: largest difference of an element.
        relative: part of the element itself that is added to its limit.
        name: which outputs.
        of: the tensor, for the message alone.
        unit: of the difference.
    """
    __tracebackhide__ = True
    expected = torch.as_tensor(theirs).detach()
    assert ours.shape == expected.shape, f"{kind} {name} {of}: {tuple(ours.shape)}, not {tuple(expected.shape)}"
    differences = (ours.detach().double() - expected.double()).abs()
    limits = limit + relative * expected.double().abs()
    if relative:
        assert (differences <= limits).all(), f"{kind} {name} {of}: an element differs by more than its limit"
    difference, limit = (x.amax().item() if x.numel() else 0.0 for x in (differences, limits))
    names = [str(x.dtype).removeprefix("torch.") for x in (ours, expected)]
    precision = " beside ".join(dict.fromkeys(names))
    compare(kind, difference, limit, name=name, of=of, unit=unit, precision=precision)


def compare_terms(
    ours: Mapping[str, Tensor | float],
    theirs: Mapping[str, Tensor | float],
    *,
    limit: float,
    floor: float = 0.0,
    kind: Kind = "loss terms",
    precision: str = "float64",
) -> None:
    """Compare numbers of the same names, each relative to theirs, or to ``floor`` where theirs is smaller.

    Args:
        ours: by name.
        theirs: by name.
        limit: largest relative difference.
        floor: least number that a difference is divided by.
        kind: what of a detector it is.
        precision: of ours where they are no tensors.
    """
    __tracebackhide__ = True
    for term in ours.values():
        precision = str(term.dtype).removeprefix("torch.") if isinstance(term, Tensor) else precision
    for name, (actual, expected) in _pair_up(ours, theirs).items():
        difference = abs(actual - expected)
        relative = difference / max(abs(expected), floor) if difference else 0.0
        compare(kind, relative, limit, of=str(name), precision=precision)


def _pair_up(
    ours: Mapping[str, Tensor | float], theirs: Mapping[str, Tensor | float]
) -> dict[str, tuple[float, float]]:
    assert set(ours) == set(theirs)
    both = ((name, (ours[name], theirs[name])) for name in ours)
    return {n: tuple(x.item() if isinstance(x, Tensor) else float(x) for x in pair) for n, pair in both}


def compare_gradients(
    ours: Mapping[str, Tensor | None],
    theirs: Mapping[str, Tensor | None],
    *,
    limit: float,
    floor: float = 0.0,
    elements: tuple[float, float] | None = None,
) -> None:
    """Compare gradients of the same names, each relative to its norm.

    Args:
        ours: by the names of theirs.
        theirs: by name.
        limit: largest relative difference.
        floor: part of the norm of all gradients that is added to each norm, for those that are zero but for rounding:
            of biases that a norm takes off again, and of the bias of keys, which moves all scores of a softmax alike.
        elements: limits of the difference of each element as well, the part of itself and what is added to that.
    """
    __tracebackhide__ = True
    assert set(ours) == set(theirs)
    total = math.hypot(*(grad.norm().item() for grad in theirs.values() if grad is not None))
    for name, grad in theirs.items():
        actual = ours[name]
        assert actual is not None, name
        assert grad is not None, name
        difference = (actual - grad).norm().item()
        relative = difference / (grad.norm().item() + floor * total) if difference else 0.0
        compare("gradients", relative, limit, of=name, precision=str(actual.dtype).removeprefix("torch."))
        if elements is not None:
            torch.testing.assert_close(actual, grad, rtol=elements[0], atol=elements[1], msg=f"an element of {name}")


def compare_equal(kind: Kind, ours: Tensor | Sequence[Any], theirs: Tensor | Sequence[Any], *, name: str = "") -> None:
    """Compare what is equal or not: indices, labels."""
    __tracebackhide__ = True
    first, second = (x.tolist() if isinstance(x, Tensor) else list(x) for x in (ours, theirs))
    assert len(first) == len(second), f"{kind} {name}: {len(first)}, not {len(second)}"
    count = sum(one != other for one, other in zip(first, second, strict=True))
    compare(kind, count, 0, name=name, unit="different", precision="")


def compare_detections(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], *, scores: float, boxes: float, kind: Kind = "post-processing"
) -> None:
    """Compare detections of one image, in order.

    Args:
        ours: boxes, scores and labels.
        theirs: the same.
        scores: largest difference of scores.
        boxes: that of boxes, in pixels.
        kind: what of a detector it is.
    """
    __tracebackhide__ = True
    compare_equal(kind, ours[2], theirs[2], name="labels")
    compare_tensors(kind, ours[1], theirs[1], limit=scores, name="scores")
    compare_tensors(kind, ours[0], theirs[0], limit=boxes, name="boxes", unit="pixels")


def read_cases(path: Path = STORED) -> list[dict[str, Any]]:
    """Read what is stored; nothing where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_cases(path: Path, cases: Sequence[Case], dropped: Sequence[str] = ()) -> None:
    """Put cases into a file in place of those of the same test, part and project; keep all others.

    Args:
        path: of the file.
        cases: that were measured.
        dropped: tests, with their parameters, that are not there any more.
    """
    rows = [case.to_json() for case in cases]
    keep = [row for row in read_cases(path) if row["test"] not in dropped]
    keyed = {(row["test"], row["part"], row["project"].partition(" ")[0]): row for row in [*keep, *rows]}
    lines = [json.dumps(keyed[key], ensure_ascii=False) for key in sorted(keyed)]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
