"""A plain vision transformer of timm: the maps of several of its blocks, with or without windows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.plain_vit import PlainViT
from boxwright.structures import Features, Level, Spec

__all__ = ["ViT"]


class ViT(nn.Module):
    """The maps of blocks of a vision transformer, all of one stride, with fresh weights: nothing is downloaded.

    A level is called by its block: block3 is the map after the block of that index, counted from 0. Necks make levels
    of several strides of them: ``averaged_pyramid``, ``multi_scale_projector`` and ``simple_pyramid``.

    With windows, an image is cut into equal rectangles that go through the blocks by themselves, each with class and
    register tokens of its own; in global blocks all tokens of the image attend to each other. Images are padded with
    zeros at the right and at the bottom to multiples of patch size times ``num_windows``, and maps cut to ceil(size /
    patch size).

    Args:
        model: its name in timm: a ViT, DeiT, DINOv2, DINOv3 or EVA-02 and the like.
        blocks: the blocks whose maps go out, from 0; those beyond the last are not built.
        final_norm: apply the norm that the model ends with to every map, as DINO's maps have it.
        patch_size: side of a patch, in pixels; the model's where None.
        table_size: side of the image that the table of positions is for, in pixels; the model's where None.
        drop_path: how often the last block is left out in training; the earlier the block, the less often.
        num_windows: along each side; 1 for none. RF-DETR has 2 or 4.
        global_blocks: blocks that attend over the whole image, from 0, where there are windows. RF-DETR has 3, 6 and 9
            of 12, and takes the maps of 2, 5, 8 and 11.
        bare: leave out register tokens and layer scales, as in the small transformers of DEIMv2 and EdgeCrafter; keys
            have a bias.
        embed_dim: width, in place of the model's, with a head for each 64 channels; the model's where None.
        conv_patches: patches by four convolutions in a row rather than by one, as in EdgeCrafter's.

    Raises:
        ValueError: an option is out of range, or the model is no plain vision transformer.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, by Wightman, PyTorch Image Models, whose
    blocks this runs; names in checkpoints are timm's, below ``vit.body.model``. Checked against timm 1.0.31: same
    weights, same maps and gradients. Windows were checked against ``WindowedDinov2WithRegistersBackbone`` of
    roboflow/rf-detr 35ac6ab on squares; its windows of a rectangle are wrong, and ours were checked window by window.
    """

    def __init__(
        self,
        *,
        model: str = "vit_tiny_patch16_dinov3_qkvb",
        blocks: tuple[int, ...] = (3, 7, 11),
        final_norm: bool = False,
        patch_size: int | None = None,
        table_size: int | None = None,
        drop_path: float = 0.0,
        num_windows: int = 1,
        global_blocks: tuple[int, ...] = (),
        bare: bool = False,
        embed_dim: int | None = None,
        conv_patches: bool = False,
    ) -> None:
        super().__init__()
        self.vit = PlainViT(
            model,
            blocks,
            final_norm=final_norm,
            patch_size=patch_size,
            table_size=table_size,
            drop_path=drop_path,
            num_windows=num_windows,
            global_blocks=global_blocks,
            bare=bare,
            embed_dim=embed_dim,
            conv_patches=conv_patches,
        )
        self.out_spec: Spec = {f"block{i}": Level(self.vit.channels, self.vit.patch_size) for i in blocks}

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        return dict(zip(self.out_spec, self.vit(images), strict=True))
