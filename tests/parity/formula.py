"""Numbers that look random and follow from a name alone: the same on every machine, in every release of torch."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniform(name: str, *shape: int) -> Tensor:
    """Float64 numbers in [-1, 1): the finalizer of splitmix64 on the name's CRC-32 and the position."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint64) + (np.uint64(zlib.crc32(name.encode())) << np.uint64(32))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) / 2**52 - 1).view(shape)


def make_images(count: int, size: int | tuple[int, int]) -> Tensor:
    """Smooth patches of color, in [0, 1], of one side or of height and width."""
    patches = (uniform("pictures", count, 3, 6, 6) + 1) / 2
    return F.interpolate(patches, size=(size, size) if isinstance(size, int) else size, mode="bilinear")


@torch.no_grad()
def set_weights(module: nn.Module) -> None:
    """Float64 weights and norm statistics by the names of parameters and buffers, none of them special."""
    module.double()
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        numbers = uniform(name, *tensor.shape)
        if tensor.ndim > 1:
            gain = 6.0 if tensor.ndim == 4 else 3.0
            numbers *= (gain / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            numbers = 1 + 0.5 * numbers
        elif name.endswith("weight"):
            numbers = 0.8 + 0.2 * numbers
        elif name.endswith("sampling_offsets.bias"):
            numbers *= 3
        else:
            numbers *= 0.1
        if name == "head.denoising_classes.weight":
            numbers[-1] = 0  # places without object
        tensor.copy_(numbers)
