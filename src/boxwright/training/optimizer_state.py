"""The state of an optimizer from a file, loaded only where it is one of this optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from boxwright.training.sharding import shard_like

KEYS: Mapping[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
"""Names of the values that they keep of each parameter."""

IMPLEMENTATION = ("fused", "foreach")
"""Options that say how a step is computed, not what: shards have another, and a state comes with or without them."""


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state of whole tensors; torch itself would take any values, and fail in the first step, or go wrong.

    Raises:
        ValueError: it has other groups, options of other types, or tensors of other shapes.
    """
    groups = state["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"the optimizer has {len(groups)} groups of parameters, not {len(optimizer.param_groups)}")
    count = 0
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        expected = list(range(count, count + len(own["params"])))
        count += len(expected)
        if group["params"] != expected:
            raise ValueError("the optimizer has other parameters")
        for name, value in own.items():
            if name not in ("params", *IMPLEMENTATION) and not _is_like(group.get(name), value):
                raise ValueError(f"the optimizer has no such value for {name}: {str(group.get(name))[:100]!r}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shards: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        if not 0 <= index < count:
            raise ValueError("the optimizer has a state of a parameter that there is not")
        _check_values(optimizer, values, parameters[index])
        shards[index] = {name: _lay_out_like(value, parameters[index]) for name, value in values.items()}
    adapted = [
        {**group, **{name: own[name] for name in IMPLEMENTATION}}
        for group, own in zip(groups, optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "state": shards, "param_groups": adapted})


def _lay_out_like(value: Any, parameter: Tensor) -> Any:
    """Give a value the memory order of its parameter, and its shards: fused steps take for granted that it has them.

    The order is another where a file comes from a GPU or from shards, as only a CPU has channels last.
    """
    if not isinstance(value, Tensor) or value.shape != parameter.shape or isinstance(parameter, DTensor):
        return shard_like(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _check_values(optimizer: torch.optim.Optimizer, values: Mapping[str, Any], parameter: Tensor) -> None:
    expected = KEYS.get(type(optimizer))
    if values and expected is not None and set(values) != expected:
        raise ValueError(f"the optimizer has a state that is not of {type(optimizer).__name__}")
    for name, value in values.items():
        if value is None and name == "momentum_buffer":
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(
                f"the optimizer has a value that is no tensor of numbers among {', '.join(expected or ())}"
            )
        if value.shape != (() if name == "step" else parameter.shape):
            raise ValueError(f"the optimizer has a value of the shape {list(value.shape)}")


def _is_like(value: Any, own: Any) -> bool:
    """Tell whether a value has the type of the optimizer's own; numbers of any kind are alike."""
    if isinstance(own, tuple | list):
        return (
            isinstance(value, tuple | list)
            and len(value) == len(own)
            and all(_is_like(one, other) for one, other in zip(value, own, strict=True))
        )
    if isinstance(own, bool) or own is None:
        return type(value) is type(own)
    if isinstance(own, int | float):
        return isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    return isinstance(value, type(own))
