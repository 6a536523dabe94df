"""Balanced sampling of regions."""

from __future__ import annotations

import pytest
import torch

from boxwright.ops.box_matching import BACKGROUND, IGNORED
from boxwright.regions.sampling import max_positives, sample_balanced


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (100, 1000, (16, 48)),
        (5, 1000, (5, 59)),
        (100, 10, (16, 10)),
        (0, 1000, (0, 64)),
        (3, 0, (3, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_how_many_of_each(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matched = torch.cat((torch.arange(positives), torch.full((negatives,), BACKGROUND), torch.full((50,), IGNORED)))
    matched = matched[torch.randperm(len(matched))]
    sampled = sample_balanced(matched, 64, 0.25)
    assert (sampled.diff() > 0).all()
    kinds = matched[sampled]
    assert (int((kinds >= 0).sum()), int((kinds == BACKGROUND).sum())) == expected
    assert len(sampled) == sum(expected)


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0)), (2, (1, 1)), (3, (1, 2)), (4, (1, 3)), (8, (2, 6))])
def test_an_object_is_trained_on_however_few_are_sampled(count: int, expected: tuple[int, int]) -> None:
    matched = torch.tensor([0, 1, 2] + [BACKGROUND] * 20)
    kinds = matched[sample_balanced(matched, count, 0.25)]
    assert (int((kinds >= 0).sum()), int((kinds == BACKGROUND).sum())) == expected
    empty = sample_balanced(matched[3:], count, 0.25)
    assert len(empty) == count


def test_torchvisions_number_wherever_it_is_not_zero() -> None:
    for fraction in (0.25, 0.5):
        theirs = [int(count * fraction) for count in range(1, 600)]
        assert [max_positives(count, fraction) for count in range(1, 600)] == [number or 1 for number in theirs]


def test_every_region_has_the_same_chance() -> None:
    torch.manual_seed(0)
    matched = torch.tensor([0] * 8 + [BACKGROUND] * 8)
    counts = torch.zeros(16)
    for _ in range(2000):
        counts[sample_balanced(matched, 8, 0.25)] += 1
    torch.testing.assert_close(counts / 2000, torch.tensor([0.25] * 8 + [0.75] * 8), rtol=0, atol=0.04)
