"""Random weights of mmdetection's detectors, the same on every machine and in every release of torch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_SCALES = {
    "rpn_cls.weight": 1.0,
    "rpn_reg.weight": 0.3,
    "fc_cls.weight": 1.5,
    "fc_reg.weight": 0.5,
    "retina_cls.weight": 2.0,
    "retina_reg.weight": 0.3,
    "retina_cls.bias": -3.0,
}
"""Sizes of predictions that tell boxes and classes apart; biases start here."""


def random_weights(
    shapes: Mapping[str, tuple[int, ...]], *, input_std: float = 1.0, predictions: float = 1.0
) -> dict[str, Tensor]:
    """Draw a tensor for every name: convolutions keep the size of what they get, norms have statistics of their own.

    Args:
        shapes: by name.
        input_std: of the network input: about 1, and 60 for caffe files, which only subtract the mean.
        predictions: factor of the last layers of a dense head, for networks that make large features.
    """
    weights = {name: torch.from_numpy(_draw(name, shape).astype(np.float32)) for name, shape in shapes.items()}
    for name, tensor in weights.items():
        if name in ("backbone.bn1.running_var", "neck.rfp_modules.0.bn1.running_var"):
            tensor *= input_std**2
        if name in ("bbox_head.retina_cls.weight", "bbox_head.retina_reg.weight"):
            tensor *= predictions
        if name.endswith(("weight_gamma", "weight_beta")):
            fan_in = int(np.prod(shapes[name.rpartition("_")[0]][1:]))
            if name.endswith("gamma"):
                tensor.mul_(0.1).add_(1.0).mul_((2 / fan_in) ** 0.5)
            else:
                tensor *= 0.2 / fan_in
        if name.endswith("bn2.weight") and name.replace("bn2.weight", "conv3.weight") not in shapes:
            tensor *= 0.3
    copied = re.compile(r"(bbox_head\.\w+_convs)\.[1-9](\.\d+\.conv\..*)")
    return {name: weights[copied.sub(r"\1.0\2", name)] for name in weights}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    normal = random.standard_normal(shape)
    scale = next((value for end, value in _SCALES.items() if name.endswith(end)), None)
    if len(shape) > 1:
        if "lateral_convs" in name:
            scale = 0.3
        return normal * np.sqrt((2.0 if scale is None else 1.0) / int(np.prod(shape[1:]))) * (scale or 1.0)
    if name.endswith("running_var"):
        return random.uniform(0.7, 1.3, shape)
    if ".bn" in name or "downsample.1" in name:
        small = name.endswith(("bn3.weight", "out_conv.bn.weight"))
        base = (0.3 if small else 1.0) if name.endswith("weight") else 0.0
        return base + 0.1 * normal * (base or 1.0)
    return (scale or 0.0) + 0.05 * normal
