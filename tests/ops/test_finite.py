"""Predictions that are not numbers stay visible and are refused."""

from __future__ import annotations

import pytest
import torch

from boxwright.ops.finite import check_finite, nan_like_any


def test_infinities_are_numbers_and_nan_is_not() -> None:
    for scores in (torch.tensor([0.0, torch.inf]), torch.tensor([[-torch.inf]]).bfloat16(), torch.zeros(0, 4)):
        check_finite(scores)
    with pytest.raises(ValueError, match="has diverged"):
        check_finite(torch.tensor([0.0, torch.nan]))


def test_an_image_with_a_nan_anywhere_is_marked() -> None:
    one, two = torch.zeros(3, 4), torch.full((3, 2, 2), torch.inf)
    one[1, 3] = torch.nan
    two[2, 0, 1] = torch.nan
    marked = nan_like_any(one, two)
    assert marked[0] == 0
    assert marked.isnan().tolist() == [False, True, True]
