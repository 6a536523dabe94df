"""The processes that train together, where torchrun has started several, and their devices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist

from boxwright.devices import choose_device


@dataclass(frozen=True)
class Rank:
    """This process among all that train.

    Args:
        index: from 0.
        world_size: number of processes.
        device: of this process.
    """

    index: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True in the one process that evaluates, writes and prints."""
        return self.index == 0


def init_distributed(device: str) -> Rank:
    """Join the other processes where torchrun has started any; one process of one otherwise.

    Args:
        device: as in ``RuntimeOptions``.

    Raises:
        ValueError: there is no such device.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    used = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if used.type == "cuda" else "gloo")
    if used.type == "cuda":
        torch.cuda.set_device(used)
    return Rank(dist.get_rank() if dist.is_initialized() else 0, count, used)


def highest(rank: Rank, *numbers: int | float) -> list[int | float]:
    """Return the highest of each number over all processes, each of which must ask."""
    if rank.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, dtype=torch.float64, device=rank.device)
    dist.all_reduce(every, dist.ReduceOp.MAX)
    return [float(number) for number in every.tolist()]


def wait_for_all(rank: Rank) -> None:
    """Return once all processes have come here."""
    highest(rank, 0)


def choose_precision(name: str, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Choose the precision that ``name`` means: ``auto`` takes bfloat16 where ``device`` multiplies it natively."""
    if name == "auto":
        return "bfloat16" if _has_native_bfloat16(device) else "float32"
    return "bfloat16" if name == "bfloat16" else "float32"


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
