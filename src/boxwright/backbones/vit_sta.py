"""Spatial tuning adapter: three levels of a plain vision transformer and a small convolutional network beside it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.one_map import resize_by
from boxwright.layers.option_checks import check_counts
from boxwright.layers.padding import crop_map
from boxwright.layers.plain_vit import PlainViT
from boxwright.structures import Features, Level, Spec

__all__ = ["ViTSTA"]

LEVEL_SCALES = {"c3": 2.0, "c4": 1.0, "c5": 0.5}
"""Cells of each level per patch, along a side."""


class ViTSTA(nn.Module):
    """Maps of three blocks, resized to three strides; beside each, a map of convolutions on the image; then fused.

    c_l = norm(conv1x1(cat(resize(block_l), stem_l)))

    A backbone, because the stem sees the image: it has the details that patches of 16 pixels have lost.

    Args:
        model: name of the transformer in timm: a ViT, DeiT, DINOv2, DINOv3 or EVA-02 and the like, with patches of 16
            pixels for levels of 8, 16 and 32.
        blocks: the blocks of c3, c4 and c5, from 0, or one for all of them; those beyond the last are not built.
        stem_channels: width of the stem, which has 1, 2, 4 and 4 times as many at strides 4, 8, 16 and 32. 0 for no
            stem. DEIMv2 has 16 in S and M, 32 in L, 64 in X.
        out_channels: width of every level; that of the transformer where None.
        final_norm: apply the norm that the model ends with to every map (DEIMv2's L and X).
        drop_path: how often the last block is left out in training; the earlier the block, the less often.
        bare: leave out register tokens and layer scales, which the transformer of DEIMv2's S and M does not have; keys
            have a bias.
        embed_dim: width of the transformer, in place of the model's, with a head for each 64 channels (256 in DEIMv2's
            M); the model's where None.

    Raises:
        ValueError: an option is out of range, or the model is no plain vision transformer.

    Source: Huang et al., Real-Time Object Detection Meets DINOv3, 2025, section 3.1. Checked against ``DINOv3STAs`` of
    Intellindust-AI-Lab/DEIMv2 0fff8d4 with its own transformer: same weights, same maps and gradients. Differs in a map
    of half an odd size: ours averages the last row and column, theirs leaves them out.
    """

    def __init__(
        self,
        *,
        model: str = "vit_tiny_patch16_dinov3_qkvb",
        blocks: tuple[int, ...] = (3, 7, 11),
        stem_channels: int = 16,
        out_channels: int | None = None,
        final_norm: bool = False,
        drop_path: float = 0.0,
        bare: bool = False,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_counts({"stem_channels": stem_channels}, least=0)
        if out_channels is not None:
            check_counts({"out_channels": out_channels})
        if len(blocks) not in (1, 3):
            raise ValueError(f"blocks are three, of c3, c4 and c5, or one for all of them, not {list(blocks)}")
        self.vit = PlainViT(model, blocks, final_norm=final_norm, drop_path=drop_path, bare=bare, embed_dim=embed_dim)
        self.stem = DetailStem(stem_channels) if stem_channels else None
        widths = [self.vit.channels + factor * stem_channels for factor in (2, 4, 4)]
        channels = out_channels or self.vit.channels
        self.fuse = nn.ModuleList(ConvNorm(width, channels, 1) for width in widths)
        patch = self.vit.patch_size
        if patch % 2:
            raise ValueError(f"model {model} has patches of {patch} pixels, whose half is no stride")
        self.out_spec: Spec = {name: Level(channels, round(patch / scale)) for name, scale in LEVEL_SCALES.items()}

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        maps = self.vit(images)
        details = self.stem(images) if self.stem else []
        levels: Features = {}
        for i, (name, level) in enumerate(self.out_spec.items()):
            x = resize_by(maps[i % len(maps)], LEVEL_SCALES[name])
            if details:
                # Cut by the stem's own map: in a graph with free sizes, ceil(size / stride) is another expression.
                x = torch.cat((crop_map(x, *details[i].shape[-2:]), details[i]), 1)
            else:
                x = crop_map(x, *((side + level.stride - 1) // level.stride for side in images.shape[-2:]))
            levels[name] = self.fuse[i](x)
        return levels


class DetailStem(nn.Module):
    """Five convolutions and a max-pooling: maps of strides 8, 16 and 32, of 2, 4 and 4 times ``channels``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(ConvNorm(3, channels, 3, 2, activation="gelu"), nn.MaxPool2d(3, 2, 1))
        self.stride8 = ConvNorm(channels, 2 * channels, 3, 2)
        self.stride16 = nn.Sequential(nn.GELU(), ConvNorm(2 * channels, 4 * channels, 3, 2))
        self.stride32 = nn.Sequential(nn.GELU(), ConvNorm(4 * channels, 4 * channels, 3, 2))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        fine = self.stride8(self.begin(images))
        middle = self.stride16(fine)
        return [fine, middle, self.stride32(middle)]
