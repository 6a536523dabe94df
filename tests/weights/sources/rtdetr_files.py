"""Files of RT-DETR's authors: weights that follow from names, and detections of their own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parity.formula import uniform
from weights.source_checks import Expected

FOLDER = Path(__file__).parent / "data"
SIDE, NUM_QUERIES = 160, 30

POINTS = {"rtdetr": (4, 4, 4), "rtdetrv2": (3, 4, 2), "rtdetrv2_dsp": (4, 4, 4)}
"""Sampling points of each level, by variant."""


class AuthorsFile(NamedTuple):
    """Tensors of a file, and what the authors' code detects with them in the images of ``draw_images``."""

    tensors: dict[str, Tensor]
    detections: list[Expected]


def draw_weight(name: str, shape: tuple[int, ...], variant: str) -> Tensor:
    """Draw a weight of the usual size by its name and the variant."""
    numbers = uniform(f"{variant} {name}", *shape)
    if len(shape) > 1:
        gain = 6.0 if len(shape) == 4 else 4.0
        # Samples that jump multiply float32's rounding.
        if "sampling_offsets" in name or ("bbox_head" in name and ".layers.2." in name):
            gain = 0.15
        return (numbers * (gain / np.prod(shape[1:])) ** 0.5).float()
    if "norm" in name and name.endswith("weight"):
        return (0.35 + 0.15 * numbers).float()
    return ((2.0 if "sampling_offsets" in name else 0.1) * numbers).float()


class AuthorsBackbone(NamedTuple):
    """Tensors of a ``PResNet``, and every 64th channel of the levels that it makes of ``draw_input()``, c3 first."""

    tensors: dict[str, Tensor]
    levels: list[Tensor]


def draw_input() -> Tensor:
    """Draw the input of backbones, (1, 3, h, w)."""
    return (uniform("input", 1, 3, 96, 160).float() + 1) / 2


def draw_statistics(name: str, shape: tuple[int, ...], variant: str) -> Tensor:
    """Draw the running mean or variance of a norm by its name and the variant."""
    numbers = uniform(f"{variant} {name}", *shape)
    return (0.5 + 0.2 * numbers if name.endswith("var") else 0.1 * numbers).float()


def make_backbone(variant: str) -> AuthorsBackbone:
    """Make the file of the backbone ``r18`` or ``r50``."""
    with np.load(FOLDER / f"authors_{variant}_backbone.npz") as stored:
        shapes = json.loads(stored["shapes"].tobytes())
        levels = [torch.from_numpy(stored[level]) for level in ("c3", "c4", "c5")]
    draw = {True: draw_statistics, False: draw_weight}
    tensors = {name: draw["running" in name](name, tuple(shape), variant) for name, shape in shapes}
    return AuthorsBackbone(tensors, levels)


def make_file(variant: str) -> AuthorsFile:
    """Make the file of one of the variants."""
    with np.load(FOLDER / f"authors_{variant}.npz") as stored:
        shapes = json.loads(stored["shapes"].tobytes())
        statistics = torch.from_numpy(stored["statistics"].astype(np.float32))
        rows = [torch.from_numpy(stored[str(i)]) for i in range(3)]
    tensors: dict[str, Tensor] = {}
    first = 0
    for name, shape in shapes:
        if "running" in name:
            tensors[name], first = statistics[first : first + shape[0]], first + shape[0]
        elif name.endswith("num_points_scale"):
            tensors[name] = torch.tensor([1 / count for count in POINTS[variant] for _ in range(count)])
        elif name.endswith(("num_batches_tracked", "anchors", "valid_mask")):
            tensors[name] = torch.zeros(shape)  # constants that reading skips
        else:
            tensors[name] = draw_weight(name, tuple(shape), variant)
    return AuthorsFile(tensors, [Expected(x[:, 4], x[:, 5].long(), x[:, :4]) for x in rows])
