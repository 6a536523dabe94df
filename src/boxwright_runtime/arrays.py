"""NumPy arrays, and tensors of torch where somebody else has imported it; it is never imported here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = Any
"""A NumPy array, or a tensor of torch: files that are exported give the one, detectors in torch the other."""


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Tell whether a value is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(values: Any) -> npt.NDArray[Any]:
    """Convert to an array on the CPU; bfloat16, which NumPy does not have, becomes float32."""
    if not is_tensor(values):
        return np.asarray(values)
    values = values.detach().cpu()
    array: npt.NDArray[Any] = (values.float() if values.is_floating_point() else values).numpy()
    return array


def to_device(values: Array, device: Any) -> Array:
    """Copy a tensor to another device; an array is on the CPU, and stays.

    Raises:
        ValueError: the device of an array is to be another one.
    """
    if is_tensor(values):
        return values.to(device)
    if str(device) != "cpu":
        raise ValueError(f"these detections are arrays, which are on the CPU and cannot be moved to {device}")
    return values


def like(values: npt.NDArray[Any], other: Array) -> Array:
    """Convert an array to the kind, the type and the device of another one."""
    if is_tensor(other):
        return other.new_tensor(values)
    return values.astype(other.dtype)
