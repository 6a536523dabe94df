"""The nouns: levels on their way to the head, and what a step consists of."""

from __future__ import annotations

import pytest
import torch

from boxwright.structures import (
    Level,
    LossTotals,
    Spec,
    Targets,
    coarser_name,
    head_levels,
    levels_for_head,
    main_levels,
)

LATERAL = Level(8, 8, auxiliary=True)
AUGMENTED: Spec = {"c3": Level(8, 8), "c3_lateral": LATERAL, "c4": Level(8, 16)}


def test_auxiliary_levels_pass_necks_by_and_reach_the_head() -> None:
    assert main_levels(AUGMENTED) == {"c3": Level(8, 8), "c4": Level(8, 16)}
    last: Spec = {"c3": Level(4, 8)}
    assert levels_for_head([{"c3": Level(2, 8)}, AUGMENTED, last]) == {"c3_lateral": LATERAL, "c3": Level(4, 8)}
    assert levels_for_head([last, AUGMENTED]) == AUGMENTED


def test_a_head_predicts_from_levels_that_are_not_auxiliary() -> None:
    assert head_levels(AUGMENTED) == ["c3", "c4"]
    with pytest.raises(ValueError, match="the head needs at least one level"):
        head_levels({"c3": LATERAL})


@pytest.mark.parametrize(("name", "coarser"), [("c5", "c6"), ("p9", "p10"), ("top", "top1"), ("s2_c3", "s2_c4")])
def test_the_name_of_a_coarser_level(name: str, coarser: str) -> None:
    assert coarser_name(name) == coarser


def test_fractions_of_a_step() -> None:
    totals = LossTotals(objects=6, images=4, processes=2, matches=5)
    assert (totals.objects_per_process, totals.images_per_process) == (3.0, 2.0)
    assert (totals.matches_per_process, totals.matches_and_one_per_process) == (2.5, 3.0)
    target = Targets(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4), (8, 8))
    counted = LossTotals.of([target, target])
    assert counted == LossTotals(6, 2, 1, None)
    for divisor in ("matches_per_process", "matches_and_one_per_process"):
        with pytest.raises(ValueError, match=r"need LossTotals with matches; Detector\.totals counts them"):
            getattr(counted, divisor)


@pytest.mark.parametrize(
    ("count", "processes", "expected"), [(0, 1, 1.0), (0, 8, 0.125), (3, 8, 0.375), (12, 8, 1.5), (3, 1, 3.0)]
)
def test_a_step_without_objects_counts_one_over_all_processes(count: int, processes: int, expected: float) -> None:
    totals = LossTotals(objects=count, images=processes, processes=processes, matches=count)
    assert totals.objects_per_process == expected
    assert totals.matches_per_process == expected
    # google/automl: one more than the matches.
    assert totals.matches_and_one_per_process == (count + 1) / processes
