"""Check of what checkpoints hold: every value of the kind that the code behind relies on, and none without end.

A file is the work of anybody. After this check its recipe is plain values of bounded size and depth (their names and
meaning are checked where recipes are), its classes are numbers and texts, its weights tensors by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_MAX_DEPTH = 20
_MAX_VALUES = 20_000
"""Of the plain values of a section; recipes have hundreds."""

_MAX_LETTERS = 20_000
"""Of a text among them."""

_MAX_INTEGER = 2**63
_MAX_CLASSES = 100_000
_MAX_STEPS = 10**12


def check_contents(content: Mapping[str, Any]) -> None:
    """Check a checkpoint's content, with today's names.

    Raises:
        ValueError: something is of another kind; says what.
    """
    for section in ("recipe", "passport", "tuning"):
        value = content.get(section)
        if value is None and section != "recipe":
            continue
        if not isinstance(value, Mapping):
            raise ValueError(f"its {section} is no mapping")
        check_plain(value, f"its {section}")
    _check_categories(content["categories"])
    for name in ("model", "ema"):
        if name in content and not _is_weights(content[name]):
            raise ValueError("its weights are not tensors by name")
    if not content["model"]:
        raise ValueError("it has no weights")
    if "progress" in content:
        _check_progress(content["progress"])
    if "optimizer" in content:
        _check_optimizer(content["optimizer"])


def check_plain(value: Any, what: str) -> None:
    """Check that a value is of numbers, texts, lists and mappings with texts as keys, not too many nor too deep.

    Raises:
        ValueError: it is not.
    """
    count, unseen = 0, [(value, 0)]
    while unseen:
        one, depth = unseen.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise ValueError(f"{what} holds more than {_MAX_VALUES:,} values, or is nested more than {_MAX_DEPTH} deep")
        if isinstance(one, Mapping):
            if not all(isinstance(key, str) and len(key) <= _MAX_LETTERS for key in one):
                raise ValueError(f"{what} has names that are no texts")
            unseen += [(inner, depth + 1) for inner in one.values()]
        elif type(one) in (list, tuple):
            unseen += [(inner, depth + 1) for inner in one]
        elif not _is_plain(one):
            raise ValueError(f"{what} holds a value of the type {type(one).__name__}, or one that is too large")


def _is_plain(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < _MAX_INTEGER
    if type(value) is str:
        return len(value) <= _MAX_LETTERS
    return value is None or type(value) in (bool, float)


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _check_categories(value: Any) -> None:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MAX_CLASSES:
        raise ValueError("its categories are no list of classes")
    for one in value:
        if not isinstance(one, list | tuple) or len(one) != 2:
            raise ValueError("its categories are not pairs of an id and a name")
        number, name = one
        if type(number) is not int or type(name) is not str or not (_is_plain(number) and _is_plain(name)):
            raise ValueError("its categories are not pairs of a whole number and a text")


def _check_progress(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError("its progress is no mapping")
    check_plain(value, "its progress")
    # That it is all there is checked where training goes on.
    for name in ("step", "steps", "evaluations"):
        number = value.get(name, 0)
        if type(number) is not int or not 0 <= number <= _MAX_STEPS:
            raise ValueError(f"its progress has no number of {name}")
    if value.get("step", 0) > value.get("steps", _MAX_STEPS):
        raise ValueError(f"its progress is {value['step']:,} of {value['steps']:,} steps")
    for name, least in (("best", -math.inf), ("seconds", 0.0)):
        number = value.get(name)
        if number is not None and (type(number) not in (int, float) or not least <= number < math.inf):
            raise ValueError(f"its progress has no number for '{name}'")
    if not isinstance(value.get("measure", ""), str):
        raise ValueError("its progress has no text for 'measure'")


def _check_optimizer(value: Any) -> None:
    """Check what torch's optimizers take for granted: groups of plain options, and tensors by parameter's index."""
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        raise ValueError("its optimizer has no state")
    groups = value.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("its optimizer has no groups of parameters")
    for group in groups:
        check_plain(group, "its optimizer")
        indices = group.get("params")
        if not isinstance(indices, list) or not all(type(index) is int for index in indices):
            raise ValueError("its optimizer has a group without parameters")
    for index, state in value["state"].items():
        if type(index) is not int or not isinstance(state, Mapping):
            raise ValueError("its optimizer's state is not by parameter")
        for name, one in state.items():
            if not isinstance(name, str) or not (isinstance(one, Tensor) or _is_plain(one)):
                raise ValueError("its optimizer's state holds something else than tensors and numbers")
