"""Rows of class layers: those of classes that two detectors share, by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from boxwright.contracts import ClassifyingHead
from boxwright.detector import Detector
from boxwright.structures import Category, ClassRows
from boxwright.weights.labels import UNUSED, canonical_name

HEAD = "head."

NEW_FRACTION = 0.1
"""Probability that new classes start with in all, as a fraction of background's, where they compete with known ones."""

Pairs = Sequence[tuple[int, int]]
"""Labels of the same class, here and in the source."""


def match_classes(own: Sequence[Category], source: Sequence[Category]) -> list[tuple[int, int]]:
    """Find the classes of the same name: pairs of their labels, here and in the source.

    Names are compared in their canonical form, in which "motorbike" is COCO's "motorcycle". A name that stands for
    several classes of one side stands for none.
    """
    ours, theirs = (_labels_by_name(categories) for categories in (own, source))
    return [(label, theirs[name]) for name, label in ours.items() if name in theirs]


def class_tensors(detector: Detector) -> dict[str, ClassRows]:
    """List the tensors of a detector that have rows for each class, by name."""
    if not isinstance(detector.head, ClassifyingHead):
        return {}
    forms = detector.head.class_rows()
    return {
        f"{HEAD}{path}.{name}": form
        for path, form in forms.items()
        for name in detector.head.get_submodule(path).state_dict()
    }


def copy_class_rows(
    own: Tensor, source: Tensor, form: ClassRows, pairs: Pairs, counts: tuple[int, int]
) -> Tensor | None:
    """Copy the rows of shared classes, and those that are of no class, from the source into a copy of ``own``.

    In a softmax, the rows of new classes start as copies of background's, a little less probable: random ones, with
    logits about 0 whatever those of the source are, would take the probability of the classes that are known.

    Args:
        own: of the detector.
        source: of the same layer of another detector.
        form: of both.
        pairs: of ``match_classes``.
        counts: numbers of classes, here and in the source.

    Returns:
        The rows together; None where the source is of another form, or the widths differ.
    """
    units = [count + form.others for count in counts]
    if own.shape[1:] != source.shape[1:] or any(
        len(rows) != form.blocks * unit * form.rows for rows, unit in zip((own, source), units, strict=True)
    ):
        return None
    result = own.clone()
    target, origin = (
        rows.view(form.blocks, unit, form.rows, *rows.shape[1:])
        for rows, unit in zip((result, source), units, strict=True)
    )
    if pairs:
        here, there = torch.tensor(pairs).unbind(1)
        target[:, here] = origin[:, there].to(target.dtype)
    target[:, counts[0] :] = origin[:, counts[1] :].to(target.dtype)
    new = sorted(set(range(counts[0])) - {here for here, _ in pairs})
    if form.softmax and new:
        target[:, new] = target[:, -1:].clone()
        if own.ndim == 1:
            target[:, new] -= math.log(len(new) / NEW_FRACTION)
    return result


def _labels_by_name(categories: Sequence[Category]) -> Mapping[str, int]:
    names = [canonical_name(category.name) for category in categories]
    counts = Counter(names)
    unused = canonical_name(UNUSED)
    return {name: label for label, name in enumerate(names) if counts[name] == 1 and name != unused}
