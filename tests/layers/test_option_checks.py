"""Checks of options: values that pass, and messages on the rest."""

from __future__ import annotations

import pytest

from boxwright.layers.option_checks import check_choice, check_counts, check_fractions, check_hidden_dim


def test_what_is_allowed_passes() -> None:
    check_counts({"a": 1, "b": 7})
    check_counts({"a": 0}, least=0)
    check_fractions({"a": 0.0, "b": 1.0})
    check_fractions({"a": 1.0}, zero=False)
    check_choice("a", "x", ("x", "y"))
    check_hidden_dim(6, 2)
    check_hidden_dim(8, 2, sine=True)


def test_counts() -> None:
    with pytest.raises(ValueError, match=r"^b is at least 1, not 0$"):
        check_counts({"a": 1, "b": 0})
    with pytest.raises(ValueError, match=r"^a is at least 2, not 1$"):
        check_counts({"a": 1}, least=2)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^b is in \[0, 1\], not {value}$"):
        check_fractions({"a": 0.5, "b": value})
    with pytest.raises(ValueError, match=rf"^a is in \(0, 1\], not {value}$"):
        check_fractions({"a": value}, zero=False)


def test_shares_above_zero() -> None:
    with pytest.raises(ValueError, match=r"^a is in \(0, 1\], not 0\.0$"):
        check_fractions({"a": 0.0}, zero=False)


def test_choices() -> None:
    with pytest.raises(ValueError, match=r"^a is one of \['x', 'y'\], not 'z'$"):
        check_choice("a", "z", ("x", "y"))
    with pytest.raises(ValueError, match=r"^depth is one of \[18, 34\], not 20$"):
        check_choice("depth", 20, {18: None, 34: None})


@pytest.mark.parametrize("hidden_dim", [-6, 0, 5])
def test_hidden_dim(hidden_dim: int) -> None:
    with pytest.raises(ValueError, match=rf"^hidden_dim is a multiple of num_heads \(2\), not {hidden_dim}$"):
        check_hidden_dim(hidden_dim, 2)
    with pytest.raises(ValueError, match=rf"^hidden_dim is a multiple of 4 and of num_heads \(3\), not {hidden_dim}$"):
        check_hidden_dim(hidden_dim, 3, sine=True)


def test_a_sine_encoding_needs_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match=r"not 6$"):
        check_hidden_dim(6, 2, sine=True)
