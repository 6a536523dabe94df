"""Inert stand-ins for the classes that files of weights name, so that reading runs none of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

_MAPPINGS = ("defaultdict", "ConfigDict", "EasyDict", "AttrDict", "CfgNode", "Dict")
"""Last parts of the names of classes that are mappings."""

MAX_VALUES = 100_000
"""Plain values that are read of one file: an option list has hundreds, a trap can nest any number in a few bytes."""

MAX_DEPTH = 50

_DROPPED = object()


class StandIn(list[Any]):
    """A value of a class that was not imported: what it was made of, and its state."""

    path = ""

    def __new__(cls, *args: Any) -> StandIn:
        created = super().__new__(cls)
        created.args = args
        created.state = None
        return created

    args: tuple[Any, ...]
    state: Any

    def __init__(self, *args: Any) -> None:
        del args
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _MappingStandIn:
    def __new__(cls, *args: Any) -> Any:
        del args
        return OrderedDict()


def make_stand_in(path: str) -> type[Any]:
    """Make a class that stands for the class or function of this dotted name, and does nothing."""
    base = _MappingStandIn if path.rpartition(".")[2] in _MAPPINGS else StandIn
    return type(path.rpartition(".")[2] or "Unnamed", (base,), {"path": path})


def to_plain(value: Any) -> Any:
    """Convert what was read to numbers, texts, lists and mappings; what has no such form, tensors among it, is None.

    Objects become mappings of their attributes, paths become texts, numpy's numbers and arrays become Python's.
    """
    converted = _Conversion().convert(value, 0)
    return None if converted is _DROPPED else converted


class _Conversion:
    def __init__(self) -> None:
        self.remaining = MAX_VALUES

    def convert(self, value: Any, depth: int) -> Any:
        self.remaining -= 1
        if self.remaining < 0 or depth > MAX_DEPTH:
            return _DROPPED
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, StandIn):
            return self._convert_stand_in(value, depth)
        if isinstance(value, Mapping):
            return self._convert_mapping(value, depth)
        if isinstance(value, list | tuple | set):
            return [one for one in (self.convert(each, depth + 1) for each in value) if one is not _DROPPED]
        return _DROPPED

    def _convert_mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        converted = {}
        for key, each in value.items():
            if isinstance(key, str | int | float) and not isinstance(each, Tensor):
                plain = self.convert(each, depth + 1)
                if plain is not _DROPPED:
                    converted[str(key)] = plain
        return converted

    def _convert_stand_in(self, value: StandIn, depth: int) -> Any:
        name = value.path.rpartition(".")[2]
        if name.endswith("Path"):
            return "/".join(str(part) for part in value.args if isinstance(part, str)).replace("//", "/")
        if value.path.endswith("multiarray.scalar"):
            return _first(_numbers(*value.args[:2], shape=()))
        if name == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
            _, shape, dtype, _, data = value.state
            return _numbers(dtype, data, shape=shape)
        if len(value):
            return [one for one in (self.convert(each, depth + 1) for each in value) if one is not _DROPPED]
        state = value.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], Mapping | None):
            state = {**(state[0] or {}), **(state[1] if isinstance(state[1], Mapping) else {})}
        return self._convert_mapping(state, depth) if isinstance(state, Mapping) else _DROPPED


def _first(values: Any) -> Any:
    return values[0] if isinstance(values, list) and len(values) == 1 else _DROPPED


def _numbers(dtype: Any, data: Any, *, shape: Any) -> Any:
    """Read the numbers of one of numpy's scalars or arrays, flat; objects, and numbers that are many, are dropped."""
    code = dtype.args[0] if isinstance(dtype, StandIn) and dtype.args else None
    if not isinstance(code, str) or code[:1] not in set("biuf") or not isinstance(data, bytes):
        return _DROPPED
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    try:
        values = np.frombuffer(data, np.dtype(code).newbyteorder(">" if order == ">" else "<"))
        size = math.prod(shape)
    except (TypeError, ValueError):
        return _DROPPED
    return values.tolist() if len(values) == size <= MAX_VALUES else _DROPPED
