"""Device and precision that a name means, and all that says how a detector predicts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from boxwright_runtime.tiles import TileOptions

ComputePrecision = Literal["auto", "float32", "bfloat16"]
"""Precision in which a network computes: ``bfloat16`` is torch's autocast, in which boxes and weights stay float32;
``auto`` takes it where the device multiplies it natively."""


@dataclass(frozen=True)
class ComputeOptions:
    """Device and precision of a network that predicts, and what it tells beside its detections.

    Args:
        device: cpu, cuda, ...; auto takes a GPU where there is one.
        precision: bfloat16 runs the network under autocast; weights, boxes and what follows the network stay float32.
            auto takes it where the device multiplies it natively.
        tiles: predict large images tile by tile; None predicts each image as a whole.
        sides_std: tell the standard deviations of the sides of boxes, in ``boxwright.predict``; see ``Detections``.

    Raises:
        ValueError: there is no such precision.
    """

    device: str = "auto"
    precision: ComputePrecision = "auto"
    sides_std: bool = False
    tiles: TileOptions | None = None

    def __post_init__(self) -> None:
        require_precision(self.precision)

    @classmethod
    def of(cls, device: str | ComputeOptions) -> ComputeOptions:
        """Return options as they are, and those of a device by its name, in the precision that suits it."""
        return device if isinstance(device, ComputeOptions) else cls(device)


def choose_device(name: str | torch.device, index: int = 0) -> torch.device:
    """Choose the device that ``name`` means: ``auto`` takes GPU number ``index`` where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is auto, cpu or cuda, not {name!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"there is no device {name}: torch sees {count} CUDA devices; take cpu or auto")
    return device


def choose_precision(name: str, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Choose the precision that ``name``, a ``ComputePrecision``, means: the one rule, of training and of prediction.

    Raises:
        ValueError: there is no such precision.
    """
    require_precision(name)
    if name == "auto":
        return "bfloat16" if _has_native_bfloat16(device) else "float32"
    return "bfloat16" if name == "bfloat16" else "float32"


def require_precision(name: str) -> None:
    """Raise ``ValueError`` where ``name`` is no ``ComputePrecision``."""
    if name not in get_args(ComputePrecision):
        raise ValueError(f"precision is auto, float32 or bfloat16, not {name!r}")


def network_precision(name: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a network computes in the precision that ``name`` means on ``device``.

    What follows the network, such as the decoding of boxes, stays outside it. In float32 the context does nothing, so
    that a network in half precision, or under autocast already, stays what it is.
    """
    if choose_precision(name, device) == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
