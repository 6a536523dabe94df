"""Options from a signature, and values checked against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from torch import nn

from boxwright.compose.options import Naming, argument_help, leaves, options_of, parse_options
from boxwright.compose.values import describe_type, plain


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
        on: bool = True,
        points: int | tuple[int, ...] = 4,
        title: str | None = "x",
    ) -> None:
        del in_spec, num_classes, repeats, rate, norm, levels, sizes, pair, weights, on, points, title


def parse(**values: Any) -> dict[str, Any]:
    return parse_options(Part, values, Naming(owner="part", address="neck"))


def test_options_are_the_signature_without_the_wiring() -> None:
    options = options_of(Part)
    assert list(options)[:3] == ["repeats", "rate", "norm"]
    assert len(options) == 10
    assert options["repeats"].default == 3
    assert options["repeats"].help == "how often it repeats."
    assert options["norm"].describe() == "one of batch, frozen"


def test_options_without_a_value_take_their_defaults() -> None:
    parsed = parse()
    assert parsed["repeats"] == 3
    assert parsed["levels"] == ("c3", "c4")
    assert list(parsed) == list(options_of(Part))


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("repeats", "7", 7),
        ("rate", "1e-4", 1e-4),
        ("rate", 2, 2.0),
        ("norm", "frozen", "frozen"),
        ("levels", ["c5"], ("c5",)),
        ("levels", "c4,c5", ("c4", "c5")),
        ("levels", "[c4, c5]", ("c4", "c5")),
        ("levels", "c5", ("c5",)),
        ("sizes", "4,5", (4, 5)),
        ("pair", "1,2.5", (1, 2.5)),
        ("pair", "null", None),
        ("weights", {"a": 1}, {"a": 1.0}),
        ("on", "false", False),
        ("on", "True", True),
        ("points", "4", 4),
        ("points", "3,6,3", (3, 6, 3)),
        ("points", [3, 6], (3, 6)),
        ("title", "null", None),
        ("title", "10", "10"),
    ],
)
def test_values_are_converted_to_the_types_of_the_signature(name: str, typed: object, value: object) -> None:
    parsed = parse(**{name: typed})[name]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("repeats", "x", r"^neck.repeats: expected integer; got 'x'$"),
        ("repeats", 1.5, r"^neck.repeats: expected integer; got 1.5$"),
        ("repeats", True, r"^neck.repeats: expected integer; got True$"),
        ("repeats", None, r"^neck.repeats: expected integer; got null$"),
        ("rate", "fast", r"^neck.rate: expected number; got 'fast'$"),
        ("norm", "btach", r"^neck.norm: expected one of batch, frozen; got 'btach'$"),
        ("levels", 5, r"^neck.levels: expected list of text; got 5$"),
        ("pair", [1], r"^neck.pair: expected list \[integer, number\], or null; got \[1\]$"),
        ("title", 5, r"^neck.title: expected text, or null; got 5$"),
        ("on", 1, r"^neck.on: expected true or false; got 1$"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_line(name: str, typed: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(**{name: typed})


def test_a_misspelled_option_lists_the_options_and_suggests_the_nearest() -> None:
    with pytest.raises(
        ValueError,
        match=r"^neck.repeat: unknown part option 'repeat'; did you mean 'neck.repeats'\? options: repeats, ",
    ):
        parse(repeat=3)


def test_the_wiring_is_not_an_option() -> None:
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


def test_the_text_of_arguments_is_read_from_docstrings() -> None:
    assert argument_help("No arguments.") == {}
    assert argument_help(Part.__doc__ or "")["norm"] == "which norm."
    text = "Sum.\n\n    Args:\n        a: 1\n            more: of it.\n        b: 2.\n\n    Returns:\n        c: 3.\n"
    assert argument_help(text) == {"a": "1 more: of it.", "b": "2."}


@dataclass(frozen=True, kw_only=True)
class InnerOptions:
    """The innermost options.

    Args:
        gamma: an exponent.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma is at least 0, not {self.gamma}")


@dataclass(frozen=True, kw_only=True)
class ProposalOptions:
    """Options of proposals.

    Args:
        pre_nms_top_k: proposals before NMS.
        post_nms_top_k: proposals after it.
        inner: further options.
    """

    pre_nms_top_k: tuple[int, int] = (2000, 1000)
    post_nms_top_k: int = 1000
    inner: InnerOptions = InnerOptions()


class Grouped:
    """A part with groups of options.

    Args:
        channels: width.
        rpn: proposals.
        lr: a rate.
    """

    def __init__(
        self,
        *,
        channels: int = 256,
        rpn: ProposalOptions = ProposalOptions(post_nms_top_k=500),
        lr: float = 1.0,
    ) -> None:
        del channels, rpn, lr


def parse_grouped(values: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    naming = Naming(
        owner="head grouped",
        address="head",
        source="mine.yaml",
        overridden=frozenset(overrides),
        renamed={"num_candidates": "rpn.pre_nms_top_k", "rpn": "rpn.post_nms_top_k"},
    )
    return parse_options(Grouped, values, naming, overrides=overrides)


class TestGroups:
    def test_their_options_have_dotted_names(self) -> None:
        options = dict(leaves(options_of(Grouped)))
        assert list(options) == ["channels", "rpn.pre_nms_top_k", "rpn.post_nms_top_k", "rpn.inner.gamma", "lr"]
        assert options["rpn.post_nms_top_k"].help == "proposals after it."

    def test_defaults_are_those_of_the_owners_default_instance(self) -> None:
        assert dict(leaves(options_of(Grouped)))["rpn.post_nms_top_k"].default == 500
        assert parse_grouped({}) == {"channels": 256, "rpn": ProposalOptions(post_nms_top_k=500), "lr": 1.0}
        # A mapping changes the options that it names, and not the others.
        assert parse_grouped({"rpn": {"pre_nms_top_k": [5, 4]}})["rpn"].post_nms_top_k == 500

    @pytest.mark.parametrize(
        "values",
        [
            {"rpn": {"pre_nms_top_k": [100, 50]}},
            {"rpn": "{pre_nms_top_k: [100, 50]}"},
            {"rpn.pre_nms_top_k": "100,50"},
            {"rpn.pre-nms-top-k": "100,50"},
            {"rpn": ProposalOptions(pre_nms_top_k=(100, 50), post_nms_top_k=500)},
        ],
    )
    def test_values(self, values: dict[str, Any]) -> None:
        expected = ProposalOptions(pre_nms_top_k=(100, 50), post_nms_top_k=500)
        assert parse_grouped(values)["rpn"] == expected
        assert parse_grouped({}, **values)["rpn"] == expected

    def test_overrides_replace_single_options(self) -> None:
        parsed = parse_grouped({"rpn": {"pre_nms_top_k": [9, 9], "post_nms_top_k": 7}}, **{"rpn.pre_nms_top_k": "5,4"})
        assert parsed["rpn"] == ProposalOptions(pre_nms_top_k=(5, 4), post_nms_top_k=7)

    def test_as_plain_values(self) -> None:
        assert plain(parse_grouped({})) == {
            "channels": 256,
            "rpn": {"pre_nms_top_k": [2000, 1000], "post_nms_top_k": 500, "inner": {"gamma": 2.0}},
            "lr": 1.0,
        }

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"rpn": {"pre_nms_topk": 3}},
                r"head.rpn.pre_nms_topk: unknown head grouped option 'rpn.pre_nms_topk'; did you mean "
                r"'head.rpn.pre_nms_top_k'\? options: rpn.pre_nms_top_k, rpn.post_nms_top_k, rpn.inner.gamma$",
            ),
            (
                {"pre_nms_top_k": 3},
                r"head.pre_nms_top_k: unknown .* did you mean 'head.rpn.pre_nms_top_k'\? options: ch",
            ),
            ({"channels.x": 3}, r"head.channels.x: unknown head grouped option 'channels.x'"),
            ({"rpn.post_nms_top_k": "x"}, r"head.rpn.post_nms_top_k: expected integer; got 'x'$"),
            ({"rpn.inner": "{a"}, r"head.rpn.inner: cannot read '{a'"),
            ({"rpn.inner": None}, r"head.rpn.inner: expected a mapping of options \(gamma\); got null$"),
            ({"rpn.inner.gamma": -1}, r"head.rpn.inner: gamma is at least 0, not -1.0$"),
            ({"num_candidates": 3}, r"head.num_candidates: it is called head.rpn.pre_nms_top_k now$"),
            ({"rpn": 3}, r"head.rpn: expected a mapping .*; got 3; it is called head.rpn.post_nms_top_k now$"),
        ],
    )
    def test_mistakes(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^mine.yaml: {message}") as caught:
            parse_grouped(values)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=f"^{message}"):
            parse_grouped({}, **values)


@dataclass
class NotFrozen:
    """Options that could change."""

    depth: int = 3


@pytest.mark.parametrize(("group", "default"), [(NotFrozen, NotFrozen()), (InnerOptions, None)])
def test_a_group_is_frozen_and_has_an_instance_as_default(group: type[Any], default: object) -> None:
    class Owner:
        def __init__(self, options=default) -> None:  # type: ignore[no-untyped-def]
            del options

    Owner.__init__.__annotations__["options"] = group
    with pytest.raises(ValueError, match=f"{group.__name__}: a group of options is a frozen dataclass"):
        options_of(Owner)
