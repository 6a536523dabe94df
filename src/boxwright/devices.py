"""The device that a name means."""

from __future__ import annotations

import torch


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
