"""Plain vision transformers of timm: the maps of several blocks, all of one stride, with or without windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.option_checks import check_counts
from boxwright.layers.padding import crop_map
from boxwright.layers.timm_models import create_timm_model, import_timm
from boxwright.ops.onnx_operators import operators_for_onnx
from boxwright.ops.position_tables import bicubic_weights

HEAD_DIM = 64
"""Channels of a head, in the models of this kind."""

IMAGE_CHANNELS = 3

BARE_EPS = 1e-6
"""Of the norms of bare transformers."""


class PlainViT(nn.Module):
    """Maps of several blocks of a vision transformer of timm, with fresh weights.

    With windows, images are cut into ``num_windows`` x ``num_windows`` equal rectangles, after their positions are
    added. Each goes through the blocks by itself, as an image of the batch with class and register tokens of its own.
    In global blocks all tokens of an image attend to each other, those of all its windows.

    Images are padded with zeros at the right and at the bottom to multiples of patch size times ``num_windows``, and
    maps cut to ceil(size / patch size).

    Args:
        model: its name in timm: a ``VisionTransformer`` or an ``Eva``, as ViT, DeiT, DINOv2, DINOv3 and EVA-02 are.
        blocks: the blocks whose maps go out, from 0; those beyond the last are not built.
        final_norm: apply the norm that the model ends with to every map.
        patch_size: side of a patch, in pixels; the model's where None.
        table_size: side of the image that the table of positions is for, in pixels; the model's where None.
        drop_path: how often the last block is left out in training; the earlier the block, the less often.
        num_windows: along each side; 1 for none.
        global_blocks: blocks that attend over the whole image, from 0, where there are windows.
        bare: leave out register tokens and layer scales; all three projections of an attention have a bias.
        embed_dim: width, in place of the model's, with a head for each 64 channels; the model's where None.
        conv_patches: patches by four convolutions in a row rather than by one.

    Raises:
        ValueError: an option is out of range, or the model is no plain vision transformer.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; names in checkpoints are timm's, below
    ``body.model``. Checked against ``forward_intermediates`` of timm 1.0.31, and with windows against
    ``WindowedDinov2WithRegistersBackbone`` of roboflow/rf-detr 35ac6ab, whose windows are wrong for rectangles.
    """

    def __init__(
        self,
        model: str,
        blocks: Sequence[int],
        *,
        final_norm: bool = False,
        patch_size: int | None = None,
        table_size: int | None = None,
        drop_path: float = 0.0,
        num_windows: int = 1,
        global_blocks: Sequence[int] = (),
        bare: bool = False,
        embed_dim: int | None = None,
        conv_patches: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"num_windows": num_windows})
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is at least 0 and below 1, not {drop_path}")
        if num_windows == 1 and global_blocks:
            raise ValueError(f"global_blocks {list(global_blocks)} mean nothing without windows: set num_windows")
        self.model, self.blocks, self.num_windows, self.global_blocks = (
            model,
            tuple(blocks),
            num_windows,
            frozenset(global_blocks),
        )
        options: dict[str, Any] = {"num_classes": 0}
        sizes = {"patch_size": patch_size, "img_size": table_size}
        options |= {name: size for name, size in sizes.items() if size is not None}
        check_counts(
            {name: size for name, size in (("patch_size", patch_size), ("table_size", table_size)) if size is not None}
        )
        if drop_path:
            options["drop_path_rate"] = drop_path
        if embed_dim is not None:
            if embed_dim < 1 or embed_dim % HEAD_DIM:
                raise ValueError(f"embed_dim is a positive multiple of {HEAD_DIM}, not {embed_dim}")
            options |= {"embed_dim": embed_dim, "num_heads": embed_dim // HEAD_DIM}
        vit = create_timm_model(model, options)
        self.is_eva = _check_plain(model, vit)
        if bare:
            options["num_reg_tokens" if self.is_eva else "reg_tokens"] = 0
            vit = create_timm_model(model, options)
            _make_bare(vit, is_eva=self.is_eva)
        _check_blocks("blocks", self.blocks, len(vit.blocks))
        if self.global_blocks:
            _check_blocks("global_blocks", tuple(global_blocks), self.blocks[-1] + 1)
        # What comes behind the last map has no part in it.
        vit.prune_intermediate_layers(list(self.blocks), prune_norm=not final_norm)
        self.body = nn.ModuleDict({"model": vit})
        self.final_norm = final_norm
        self.channels = int(vit.embed_dim)
        height, width = vit.patch_embed.patch_size
        if height != width:
            raise ValueError(f"model {model} has patches of {height} x {width} pixels, which are not square")
        self.patch_size = int(height)
        if conv_patches:
            vit.patch_embed = ConvPatches(vit.patch_embed, self.channels, self.patch_size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b d _h _w"]]:
        vit, n, patch = self.vit, self.num_windows, self.patch_size
        height, width = images.shape[-2:]
        # Patches of a window, rounded up, from which all other sizes follow without a division.
        down, across = ((side + patch * n - 1) // (patch * n) for side in (height, width))
        images = F.pad(images, (0, n * across * patch - width, 0, n * down * patch - height))
        x, rope = self._embed(images, n * down, n * across)
        tables = RotaryTables(rope, n, down, across, vit.num_prefix_tokens)
        x = self._split(x, down, across)
        maps = []
        for i, block in enumerate(vit.blocks):
            tokens, whole = x.shape[1], i in self.global_blocks
            if whole:
                x = x.reshape(-1, n * n * tokens, self.channels)
            x = block(x, rope=tables.of_block(i, x, whole=whole)) if self.is_eva else block(x)
            if whole:
                x = x.reshape(-1, tokens, self.channels)
            if i in self.blocks:
                normed = vit.norm(x) if self.final_norm else x
                patches = join_windows(normed[:, vit.num_prefix_tokens :], n, down, across)
                maps.append(patches.permute(0, 3, 1, 2))
        cells = [(side + patch - 1) // patch for side in (height, width)]
        return maps if n == 1 else [crop_map(x, *cells) for x in maps]

    def _embed(self, images: Float[Tensor, "b 3 h w"], rows: Any, columns: Any) -> tuple[Float[Tensor, "b t d"], Any]:
        """Make the tokens, class and register tokens first, and the rotations of patches where a model has them."""
        vit = self.vit
        x = vit.patch_embed(images).flatten(1, 2)  # b h w d -> b t d
        first = [token.expand(x.shape[0], -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
        positions, apart = vit.pos_embed, vit.no_embed_class
        if positions is not None:
            positions = _fit_positions(positions, vit.patch_embed.grid_size, rows, columns)
        x = x if positions is None or not apart else x + positions
        x = torch.cat((*first, x), 1)
        x = x if positions is None or apart else x + positions
        rope = _rotations(vit.rope, rows, columns) if self.is_eva and vit.rope is not None else None
        return vit.norm_pre(vit.pos_drop(x)), rope

    def _split(self, x: Float[Tensor, "b t d"], down: Any, across: Any) -> Float[Tensor, "_b _t d"]:
        """Make each window an image of the batch, with first tokens of its own."""
        if self.num_windows == 1:
            return x
        first, n = self.vit.num_prefix_tokens, self.num_windows
        windows = split_windows(x[:, first:], n, down, across)
        return torch.cat((x[:, :first].repeat_interleave(n * n, 0), windows), 1)

    @property
    def vit(self) -> Any:
        """The model of timm."""
        return self.body["model"]


class ConvPatches(nn.Module):
    """Convolutions of stride 2, each of twice the channels of the one before, which make a token of each patch.

    Args:
        replaced: the patch embedding of timm that this stands for.
        channels: of the tokens.
        patch_size: side of a patch, a power of two, in pixels.

    Raises:
        ValueError: the patch size is no power of two, or the channels are too few.

    Source: EdgeCrafter, 2026. Checked against ``ConvPyramidPatchEmbed`` of Intellindust-AI-Lab/EdgeCrafter 706d037.
    """

    def __init__(self, replaced: Any, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size, self.grid_size = replaced.patch_size, replaced.grid_size
        halvings = patch_size.bit_length() - 1
        widths = [channels >> i for i in range(halvings - 1, 0, -1)]
        if patch_size != 1 << halvings or halvings < 2 or not widths[0]:
            raise ValueError(f"conv_patches is for patches of 4, 8, 16 or more pixels, not of {patch_size}")
        self.convs = nn.ModuleList(
            ConvNorm(a, b, 3, 2, activation="relu") for a, b in pairwise([IMAGE_CHANNELS, *widths])
        )
        self.proj = nn.Conv2d(widths[-1], channels, 3, 2, 1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b _h _w d"]:
        x = images
        for conv in self.convs:
            x = conv(x)
        out: Tensor = self.proj(x).permute(0, 2, 3, 1)
        return out


class RotaryTables:
    """Rotations of the tokens of windows, and of the whole image, from those of its patches.

    Args:
        rope: sines and cosines of the patches, (t, d), or of each block and head, (blocks, heads, t, d). None for none.
        num_windows: along each side.
        down: patches of a window along the height.
        across: patches of a window along the width.
        first: tokens of each window before its patches, which are not rotated.
    """

    def __init__(self, rope: Tensor | None, num_windows: int, down: Any, across: Any, first: int) -> None:
        self.rope, self.num_windows, self.down, self.across, self.first = rope, num_windows, down, across, first

    def of_block(self, block: int, tokens: Float[Tensor, "b t d"], *, whole: bool) -> Tensor | None:
        """Return the table of a block for tokens of windows, or, for a ``whole`` image, of all its windows.

        It has all tokens but the first ``first``, which timm leaves out by itself.
        """
        if self.rope is None:
            return None
        rope: Tensor = self.rope[block] if self.rope.ndim == 4 else self.rope
        if self.num_windows == 1:
            return rope
        # Heads, or one for all of them, first: m t d -> (m windows) t d -> windows m t d.
        rope = rope if rope.ndim == 3 else rope[None]
        windows: Tensor = split_windows(rope, self.num_windows, self.down, self.across)
        windows = windows.unflatten(0, (len(rope), -1)).transpose(0, 1)
        if not whole:
            return windows.repeat(tokens.shape[0] // self.num_windows**2, 1, 1, 1)
        # A rotation by nothing: sines are 0, cosines 1.
        width = windows.shape[-1] // 2
        still = torch.cat((windows.new_zeros(width), windows.new_ones(width))).expand(
            *windows.shape[:2], self.first, -1
        )
        return torch.cat((still, windows), 2).transpose(0, 1).flatten(1, 2)[:, self.first :]


def split_windows(x: Float[Tensor, "b t d"], num_windows: int, down: Any, across: Any) -> Float[Tensor, "bn tn d"]:
    """Cut the patches of each image into ``num_windows`` x ``num_windows`` rectangles, row by row, along the batch.

    Args:
        x: patches, row by row.
        num_windows: along each side.
        down: patches of a window along the height.
        across: patches of a window along the width.
    """
    windows: Tensor = x.unflatten(1, (num_windows, down, num_windows, across)).transpose(2, 3)  # b n n down across d
    return windows.flatten(3, 4).flatten(0, 2)


def join_windows(x: Float[Tensor, "bn tn d"], num_windows: int, down: Any, across: Any) -> Float[Tensor, "b h w d"]:
    """Put the rectangles that ``split_windows`` made back together."""
    maps: Tensor = x.unflatten(1, (down, across))
    if num_windows == 1:
        return maps
    windows = maps.unflatten(0, (-1, num_windows, num_windows))
    # Not reshaped: a graph with free sizes would divide them.
    sides = range(num_windows)
    return torch.cat([torch.cat([windows[:, i, j] for j in sides], 2) for i in sides], 1)


def _rotations(rope: Any, rows: Any, columns: Any) -> Tensor:
    """Make the sines and cosines of the patches."""
    if operators_for_onnx() and isinstance(rope, import_timm().layers.RotaryEmbeddingDinoV3):
        # The same numbers, where timm would fix the size; DINOv3 divides each axis by its own.
        sides = [(torch.arange(side, device=rope.periods.device) + 0.5) / side * 2 - 1 for side in (rows, columns)]
        grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, 1)
        return torch.cat(rope._get_pos_embed_from_coords(grid), -1)
    embedded: Tensor = rope.get_embed(shape=[rows, columns])
    return embedded


def _fit_positions(positions: Tensor, grid: tuple[int, int], rows: Any, columns: Any) -> Tensor:
    """Resize the positions of patches to an image of other sides, as timm does; those of first tokens stay."""
    first = positions.shape[1] - grid[0] * grid[1]
    if operators_for_onnx():
        # ONNX resizes without the smoothing.
        table = positions[0, first:].float().unflatten(0, (grid[0], -1))  # h (w d)
        down, across = (
            bicubic_weights(size, cells, table.device) for size, cells in zip(grid, (rows, columns), strict=True)
        )
        table = across @ (down @ table.flatten(1)).unflatten(1, (grid[1], -1))
        return torch.cat((positions[:, :first], table.flatten(0, 1)[None].to(positions.dtype)), 1)
    resized: Tensor = import_timm().layers.resample_abs_pos_embed(positions, [rows, columns], grid, first)
    return resized


def _check_plain(model: str, vit: Any) -> bool:
    """Tell whether a model is an Eva, whose blocks take rotations.

    Raises:
        ValueError: it is no plain vision transformer at all.
    """
    models = import_timm().models
    # Not classes made from these, which put other tokens in front.
    if type(vit) not in (models.Eva, models.VisionTransformer):
        raise ValueError(f"model {model} is no plain vision transformer: take it with the backbone timm")
    return type(vit) is models.Eva


def _make_bare(vit: Any, *, is_eva: bool) -> None:
    """Leave out layer scales, which timm has no option for, and give keys a bias, as queries and values have."""
    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = BARE_EPS
    for block in vit.blocks:
        if is_eva:
            block.gamma_1 = block.gamma_2 = None
            _join_biases(block.attn)
        else:
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()


def _join_biases(attention: Any) -> None:
    if attention.qkv is None or attention.q_bias is None:
        return
    weight = attention.qkv.weight
    joint = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    joint.weight, joint.bias = weight, nn.Parameter(torch.zeros_like(joint.bias))
    attention.qkv, attention.q_bias, attention.k_bias, attention.v_bias = joint, None, None, None


def _check_blocks(name: str, blocks: tuple[int, ...], count: int) -> None:
    if not blocks or list(blocks) != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < count:
        raise ValueError(f"{name} are one or more of 0 to {count - 1}, each once and in order, not {list(blocks)}")
