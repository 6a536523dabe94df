"""Files of mmdetection's DETR and Deformable DETR: weights that follow from names, and its own detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from parity.formula import uniform
from weights.source_checks import Expected

STORED = Path(__file__).parent / "data" / "mmdet_detr.npz"


class MMDetFile(NamedTuple):
    """Content of a file, and what mmdetection detects with it in the images of ``draw_images``."""

    content: dict[str, Any]
    detections: list[Expected]

    @property
    def tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = self.content["state_dict"]
        return tensors


def draw_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a weight of the usual size by its name."""
    numbers = uniform(name, *shape)
    if name.endswith(("query_embedding.weight", "level_embed")):
        return (1.7 * numbers).float()
    if len(shape) > 1:
        gain = 6.0 if len(shape) == 4 else 3.0
        if "sampling_offsets" in name or ("reg_branches" in name and ".4." in name):
            gain = 0.15
        return (numbers * (gain / np.prod(shape[1:])) ** 0.5).float()
    is_norm = any(part in name for part in ("norm", ".gn.", ".bn", "bn1", "downsample.1"))
    if is_norm and name.endswith("weight"):
        return (0.75 + 0.25 * numbers).float()
    return ((2.0 if "sampling_offsets" in name else 0.1) * numbers).float()


def shared_name(name: str, *, refine: bool) -> str:
    """Give copies of a head that all layers share the name of the first."""
    if refine or "_branches." not in name:
        return name
    head, branches, rest = name.partition("_branches.")
    return f"{head}{branches}0.{rest.partition('.')[2]}"


def make_file(variant: str) -> MMDetFile:
    """Make the file of one of the variants ``detr``, ``base``, ``refine`` and ``two_stage``."""
    with np.load(STORED) as stored:
        shapes = json.loads(str(stored[f"{variant}/shapes"]))
        statistics = torch.from_numpy(stored["statistics"].astype(np.float32))
        config = str(stored[f"{variant}/config"])
        detections = [
            Expected(*(torch.from_numpy(stored[f"{variant}/{i}/{part}"]) for part in ("scores", "labels", "boxes")))
            for i in range(3)
        ]
    refine = variant in ("refine", "two_stage")
    tensors: dict[str, Tensor] = {}
    first = 0
    for name, shape in shapes:
        if "running" in name:
            tensors[name], first = statistics[first : first + shape[0]], first + shape[0]
        elif name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        else:
            tensors[name] = draw_weight(shared_name(name, refine=refine), tuple(shape))
    names = ("ant", "bee", "cat", "dog", "eel", "fox")
    meta = {"cfg": config, "dataset_meta": {"CLASSES": names}, "epoch": 50, "mmdet_version": "3.3.0"}
    return MMDetFile({"meta": meta, "state_dict": tensors, "message_hub": {}}, detections)
