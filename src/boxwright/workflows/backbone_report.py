"""Report of a backbone that was loaded from another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boxwright.compose.recipe import PartOptions, Recipe
from boxwright.data.format_report import COLOR_OPTIONS, format_differences
from boxwright.detector import Detector
from boxwright.training.run import WEIGHTS
from boxwright.weights.backbone import (
    BEHIND_A_GAP,
    NO_NAMESAKE,
    NORM_EPS_OPTION,
    SourceBackbone,
    Transfer,
    norm_epsilons,
    source_norm_eps,
)
from boxwright.weights.overrides import note_resized_tables

_KINDS = (NO_NAMESAKE, BEHIND_A_GAP)

NUM_NAMES = 6
"""Names that are printed of a list."""


def report_transfer(transfer: Transfer, source: SourceBackbone, detector: Detector) -> list[str]:
    """Say for the user which tensors were loaded, skipped, resized and new, and in what the backbone is used otherwise.

    That is another color format, and another epsilon of norms.
    """
    lines = [f"backbone from {transfer.source}: {len(transfer.loaded)} tensors loaded"]
    lines += describe_skipped(transfer.skipped)
    part = detector.recipe.backbone if isinstance(detector.recipe, Recipe) else None
    if part is not None:
        there = PartOptions(source.name, source.options)
        lines += [f"note: {line}" for line in note_resized_tables(transfer.interpolated, there, part)]
    if transfer.new:
        lines.append(f"  {len(transfer.new)} new, not in that run: {list_names(transfer.new)}")
    differences = format_differences(source.input_format, detector.input_format, COLOR_OPTIONS)
    if differences:
        lines.append("note: that run normalized its images otherwise:")
        lines += [f"  {line}" for line in differences]
    return lines + _compare_norms(source, detector)


def describe_skipped(skipped: Mapping[str, str]) -> list[str]:
    """Say of the source's tensors that were not loaded why; a line for each kind of reason."""
    unknown, behind = ([name for name, reason in skipped.items() if reason == kind] for kind in _KINDS)
    misshapen = [f"{name} ({reason})" for name, reason in skipped.items() if reason not in _KINDS]
    kinds = (
        (unknown, "skipped, of which there are none here by that name"),
        (misshapen, "skipped, which have another shape here"),
        (behind, "skipped, because they follow one of their block that does not fit"),
    )
    return [f"  {len(names)} {text}: {list_names(names)}" for names, text in kinds if names]


def _compare_norms(source: SourceBackbone, detector: Detector) -> list[str]:
    expected, actual = source_norm_eps(source), norm_epsilons(detector.backbone)
    if expected is None or not actual or actual == {expected}:
        return []
    here = ", ".join(f"{eps:g}" for eps in sorted(actual))
    part = detector.recipe.backbone if isinstance(detector.recipe, Recipe) else None
    advice = f"--backbone.{NORM_EPS_OPTION} {expected:g}"
    if part is None or NORM_EPS_OPTION not in part.options:
        advice = f"no option of {'this backbone' if part is None else part.name} changes that; backbone resnet has one"
    return [f"note: its norms add {expected:g} to variances, and those here {here}: {advice}"]


def list_names(names: Sequence[str]) -> str:
    """List the first names, and count the others."""
    more = f" and {len(names) - NUM_NAMES} more (all in {WEIGHTS})" if len(names) > NUM_NAMES else ""
    return ", ".join(names[:NUM_NAMES]) + more
