"""Mutations of the structure of checkpoints and recipes, drawn from a seed, so that each can be repeated."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch

TEXTS = (
    "", " ", "a", "1", "64", "null", "\x1b[31mred", "a\nb", "x" * 50_000, "\0", "../../etc/passwd", "os:system",
    "antigravity:fly", "torch.nn:Linear", "torch.nn:Module", "hf-hub:nobody/nothing", "9" * 5000, "[" * 3000, "{a: 1}",
    "cuda:99", "10s", "nan", "1e400", "-1", "true",
)  # fmt: skip

NUMBERS = (
    0, 1, -1, 2, 3, 7, 32, 1000, 10**6, 2**31, 2**40, 2**62, 2**63, 10**30, 10**400, -(2**63), 0.0, 0.5, -0.5, 1e-300,
    1e308, -1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip

STRUCTURES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [1], [None], [1, 2, 3, 4], {"a": 1}, {"name": "fpn"}, {"name": "rtdetr"},
    {"name": None}, [{"name": "fpn"}, {"name": "pafpn"}], ["fpn"] * 40, [0] * 100_000, {"x" * 9000: 1},
)  # fmt: skip


def nest(depth: int) -> list[Any]:
    """Make a list in a list, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def repeat(times: int) -> list[Any]:
    """Make a list of which all that is in it takes exponential time to visit: shared lists of shared lists."""
    value: list[Any] = [1]
    for _ in range(times):
        value = [value] * 10
    return value


def draw_value(draw: random.Random, *, python: bool) -> Any:
    """Draw a value; ``python`` also those that only files of torch can hold."""
    kinds: list[Any] = [TEXTS, NUMBERS, NUMBERS, STRUCTURES, (nest(100), nest(3000))]
    if python:
        kinds.append(
            (repeat(12), torch.zeros(3), torch.tensor(2), (1, 2), {1: 2}, {None: 1}, {(1, 2): 3}, b"bytes", 1j, {1, 2})
        )
    return copy.copy(draw.choice(draw.choice(kinds)))


def positions(value: Any, *, depth: int = 8, at_most: int = 40) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a document with every key of it; of many alike, the first."""
    if not isinstance(value, dict | list) or not depth:
        return
    for key in list(value)[:at_most] if isinstance(value, dict) else range(min(len(value), at_most)):
        yield value, key
        yield from positions(value[key], depth=depth - 1, at_most=at_most)


def mutate_document(document: Any, draw: random.Random, *, python: bool) -> tuple[Any, str]:
    """Replace, drop, rename, add or double one value of a document, or two; returns a copy, and what was done."""
    document = _copy(document)
    done = []
    for container, key in _choose(document, draw.choice((1, 1, 1, 2)), draw):
        what = draw.randrange(8)
        if what <= 4:
            container[key] = value = draw_value(draw, python=python)
            done.append(f"{key!r} = {type(value).__name__} {_short(value)}")
        elif what == 5:
            del container[key]
            done.append(f"without {key!r}")
        elif isinstance(container, list):
            container.insert(key, container[key])
            done.append(f"[{key}] twice")
        elif what == 6:
            container[draw.choice((str(key).upper(), f"{key} ", "", "name", f"\x1b[2J{key}"))] = container.pop(key)
            done.append(f"renamed {key!r}")
        else:
            name = draw.choice(("extra", "name", "0", "in_spec", "num_classes", "self"))
            container[name] = draw_value(draw, python=python)
            done.append(f"{name} beside {key!r} = {_short(container[name])}")
    return document, "; ".join(done)


def _choose(document: Any, count: int, draw: random.Random) -> list[tuple[Any, Any]]:
    """Choose positions in different containers, often at the top, of which there are few."""
    every = list(positions(document))
    top = [one for one in every if one[0] is document]
    chosen = [draw.choice(top) if draw.random() < 0.1 else draw.choice(every) for _ in range(count)]
    return chosen if chosen[0][0] is not chosen[-1][0] else chosen[:1]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    if isinstance(value, list | dict | torch.Tensor):
        return f"of {len(value) if not isinstance(value, torch.Tensor) or value.dim() else 1}"
    return repr(value)[:60] if not isinstance(value, int) or abs(value) < 10**100 else "huge"
