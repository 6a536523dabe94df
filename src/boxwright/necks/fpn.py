"""Feature pyramid network."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.structures import Features, Level, Spec

__all__ = ["FPN"]


class FPN(nn.Module):
    """Coarse levels are enlarged and added to the finer ones; each sum is smoothed.

    top_l = conv1x1(c_l) + nearest(top_{l+1});  out_l = conv3x3(top_l)

    Args:
        in_spec: the levels that come in, fine to coarse.
        out_channels: width of every level that goes out.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 3. Checked against
    torchvision.ops.FeaturePyramidNetwork: same weights, same outputs. Level names are kept.
    """

    def __init__(self, in_spec: Spec, *, out_channels: int = 256) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"out_channels is at least 1, not {out_channels}")
        self.out_spec: Spec = {name: Level(out_channels, level.stride) for name, level in in_spec.items()}
        self.lateral = nn.ModuleDict(
            {name: nn.Conv2d(level.channels, out_channels, 1) for name, level in in_spec.items()}
        )
        self.smooth = nn.ModuleDict({name: nn.Conv2d(out_channels, out_channels, 3, padding=1) for name in in_spec})
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        out: Features = {}
        top: Tensor | None = None
        for name in reversed(list(self.out_spec)):
            lateral = self.lateral[name](features[name])
            top = lateral if top is None else lateral + F.interpolate(top, size=lateral.shape[-2:])
            out[name] = self.smooth[name](top)
        return {name: out[name] for name in self.out_spec}
