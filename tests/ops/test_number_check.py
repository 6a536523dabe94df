"""Predictions that are not numbers are refused."""

from __future__ import annotations

import pytest
import torch

from boxwright.ops.finite import check_finite


def test_infinities_are_numbers_and_nan_is_not() -> None:
    for scores in (torch.tensor([0.0, torch.inf]), torch.tensor([[-torch.inf]]).bfloat16(), torch.zeros(0, 4)):
        check_finite(scores)
    with pytest.raises(ValueError, match="has diverged"):
        check_finite(torch.tensor([0.0, torch.nan]))
