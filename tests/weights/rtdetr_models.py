"""RT-DETRs of transformers as references: configurations, and weights that tell cells and queries apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import RTDetrConfig, RTDetrResNetConfig, RTDetrV2Config

from weights.source_checks import draw_images
from weights.transformers_models import LAST_NORMS, take_statistics

DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def make_config(version: int, depth: int, *, width: int = 8, **options: Any) -> Any:
    widest = width * (1 if depth < 50 else 4)
    backbone = RTDetrResNetConfig(
        depths=DEPTHS[depth],
        hidden_sizes=[widest * 2**stage for stage in range(4)],
        layer_type="basic" if depth < 50 else "bottleneck",
        embedding_size=width,
        out_features=["stage2", "stage3", "stage4"],
    )
    channels = [widest * 2**stage for stage in (1, 2, 3)]
    config = RTDetrConfig if version == 1 else RTDetrV2Config
    return config(backbone_config=backbone, encoder_in_channels=channels, **options)


@torch.no_grad()
def calibrate(model: nn.Module, *, residual_gain: float = 1.0) -> None:
    """Draw weights that tell cells and queries apart, and give the norms the statistics of an image.

    Args:
        model: changed in place.
        residual_gain: factor of the last norms of residual blocks; with 1, rounding grows threefold in each stage of a
            ResNet-50.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name and name.endswith("bias"):
            continue
        if parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else 1.5
            # Samples that jump multiply float32's rounding.
            gain = 0.05 if "sampling_offsets" in name or ("bbox" in name and ".layers.2." in name) else gain
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        else:
            parameter.normal_(0, 0.1, generator=generator)
    norms = {name: module for name, module in model.named_modules() if hasattr(module, "running_var")}
    for name, norm in norms.items():
        norm.weight.uniform_(0.2, 0.5, generator=generator)
        norm.weight.mul_(residual_gain if LAST_NORMS.search(name) else 1.0)
        norm.bias.normal_(0, 0.1, generator=generator)
        norm.register_forward_pre_hook(take_statistics)
    model.eval()(pixel_values=torch.from_numpy(draw_images()[0]).permute(2, 0, 1)[None, :, :128, :128].float() / 255)
    for norm in norms.values():
        norm._forward_pre_hooks.clear()
