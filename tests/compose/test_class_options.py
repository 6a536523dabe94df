"""Options from a signature, and values checked against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from torch import nn

from boxwright.compose.options import describe_type, options_of, parse_options


class Part:
    """A part.

    Args:
        in_spec: never an option.
        repeats: how often
            it repeats.
        norm: which norm.
    """

    def __init__(
        self,
        in_spec: dict[str, int],
        num_classes: int,
        *,
        repeats: int = 3,
        rate: float = 0.5,
        norm: Literal["batch", "frozen"] = "batch",
        levels: tuple[str, ...] = ("c3", "c4"),
        sizes: Sequence[int] = (1, 2),
        pair: tuple[int, float] | None = None,
        weights: Mapping[str, float] | None = None,
        text: str = "x",
        on: bool = True,
    ) -> None:
        del in_spec, num_classes, repeats, rate, norm, levels, sizes, pair, weights, text, on


def parse(**values: Any) -> dict[str, Any]:
    return parse_options(Part, values, owner="part", label=lambda name: f"neck.{name}")


def test_options_are_the_signature_without_what_the_wiring_gives() -> None:
    options = options_of(Part)
    assert list(options)[:3] == ["repeats", "rate", "norm"]
    assert len(options) == 9
    assert options["repeats"].default == 3
    assert options["repeats"].help == "how often it repeats."
    assert options["norm"].expected() == "one of batch, frozen"


def test_defaults_fill_what_is_not_given() -> None:
    parsed = parse()
    assert parsed["repeats"] == 3
    assert parsed["levels"] == ("c3", "c4")
    assert list(parsed) == list(options_of(Part))


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("repeats", "7", 7),
        ("rate", "1e-4", 1e-4),
        ("rate", 2, 2.0),
        ("norm", "frozen", "frozen"),
        ("levels", ["c5"], ("c5",)),
        ("levels", "c4,c5", ("c4", "c5")),
        ("levels", "[c4, c5]", ("c4", "c5")),
        ("levels", "c5", ("c5",)),
        ("sizes", "4,5", [4, 5]),
        ("pair", "1,2.5", (1, 2.5)),
        ("pair", "null", None),
        ("weights", {"a": 1}, {"a": 1.0}),
        ("text", "10", "10"),
        ("on", "false", False),
    ],
)
def test_values_become_what_the_signature_asks_for(name: str, given: object, value: object) -> None:
    parsed = parse(**{name: given})[name]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("repeats", "x", r"^neck.repeats: expected integer; got 'x'$"),
        ("repeats", 1.5, r"^neck.repeats: expected integer; got 1.5$"),
        ("repeats", True, r"^neck.repeats: expected integer; got True$"),
        ("repeats", None, r"^neck.repeats: expected integer; got null$"),
        ("rate", "fast", r"^neck.rate: expected number; got 'fast'$"),
        ("norm", "btach", r"^neck.norm: expected one of batch, frozen; got 'btach'$"),
        ("levels", 5, r"^neck.levels: expected list of text; got 5$"),
        ("pair", [1], r"^neck.pair: expected list \[integer, number\], or null; got \[1\]$"),
        ("text", 5, r"^neck.text: expected text; got 5$"),
        ("on", 1, r"^neck.on: expected true or false; got 1$"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_line(name: str, given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(**{name: given})


def test_a_misspelt_option_lists_the_options_and_suggests_the_nearest() -> None:
    with pytest.raises(
        ValueError,
        match=r"^neck.repeat: unknown part option 'repeat'; did you mean 'repeats'\? options: repeats, ",
    ):
        parse(repeat=3)


def test_what_the_wiring_gives_is_not_an_option() -> None:
    with pytest.raises(ValueError, match="unknown part option 'num_classes'"):
        parse(num_classes=3)


class TakesAClass(nn.Module):
    """Would let a recipe import things."""

    def __init__(self, *, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm


class TakesAnything(nn.Module):
    """No annotation."""

    def __init__(self, *, norm="batch") -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.norm = norm


class NeedsAnOption(nn.Module):
    """No default."""

    def __init__(self, *, depth: int) -> None:
        super().__init__()
        self.depth = depth


@pytest.mark.parametrize("part", [TakesAClass, TakesAnything])
def test_only_plain_types_are_options(part: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=f"{part.__name__}: argument 'norm' cannot be an option"):
        options_of(part)


def test_every_option_has_a_default() -> None:
    with pytest.raises(ValueError, match="NeedsAnOption: argument 'depth' must have a default"):
        options_of(NeedsAnOption)


def test_types_in_words() -> None:
    assert describe_type(int | None) == "integer, or null"
    assert describe_type(dict[str, float]) == "mapping of text to number"
    assert describe_type(list[tuple[int, int]]) == "list of list [integer, integer]"
    with pytest.raises(TypeError):
        describe_type(nn.Module)
