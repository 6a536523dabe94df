"""The non-local block: what all cells say, added to each."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import max_pool_ceil
from boxwright.layers.conv import ConvNorm, Norm


class NonLocalBlock(nn.Module):
    """Attention of one head in half of the channels, with a residual; it starts as the identity.

    z_i = x_i + norm(W sum_j softmax_j(theta_i . phi_j / sqrt(c / 2)) g_j);  theta, phi, g = convolutions 1 x 1 of x.

    Args:
        channels: of input and output.
        norm: ``batch``, whose scale starts as zero; with ``frozen``, whose scale is never trained, W starts as zero.
        subsample: phi and g are the largest of 2 x 2 cells, so that there are a quarter as many j.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, section 3.3: embedded Gaussian, reduction 2. Checked
    against ``NonLocal2d`` of mmcv a8073c7: same weights, same outputs and gradients, on maps of even sizes. At odd
    sizes the last windows have the cells that there are, where mmcv leaves those out (and a map of one row has none).
    facebookresearch/video-nonlocal-net 4b5d2dd takes the largest of x instead, before phi and g, and its W has a bias,
    which the norm takes away again; its scale of 1 / sqrt(c / 2) is an option there, and on by default.
    """

    def __init__(self, channels: int, *, norm: Norm = "batch", subsample: bool = True) -> None:
        super().__init__()
        self.inner, self.subsample = max(channels // 2, 1), subsample
        self.embed = nn.Conv2d(channels, 3 * self.inner, 1)
        self.out = ConvNorm(self.inner, channels, 1, norm=norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with embeddings near zero, and nothing added."""
        assert self.embed.bias is not None
        nn.init.normal_(self.embed.weight, std=0.01)
        nn.init.zeros_(self.embed.bias)
        nn.init.normal_(self.out.conv.weight, std=0.01)
        if isinstance(self.out.norm, nn.BatchNorm2d):
            nn.init.zeros_(self.out.norm.weight)
        else:
            nn.init.zeros_(self.out.conv.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        theta, others = self.embed(x).split((self.inner, 2 * self.inner), 1)
        if self.subsample:
            others = max_pool_ceil(others, 2)
        phi, g = _tokens(others).chunk(2, -1)
        y = F.scaled_dot_product_attention(_tokens(theta), phi, g)
        out: Tensor = self.out(y[:, 0].transpose(1, 2).unflatten(-1, x.shape[-2:]))
        return x + out


def _tokens(x: Float[Tensor, "b c _h _w"]) -> Float[Tensor, "b 1 _t c"]:
    """Make one head of vectors, each in one piece, as fast kernels need them."""
    return x.flatten(2).transpose(1, 2).contiguous()[:, None]  # b c h w -> b 1 (h w) c
