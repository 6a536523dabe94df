"""BoTNet: ResNet with self-attention in place of the last 3 x 3 convolutions."""

from __future__ import annotations

from typing import Literal

from boxwright.layers.block_options import BlockOptions
from boxwright.layers.conv import Norm
from boxwright.layers.option_checks import check_counts
from boxwright.layers.position_attention import MapPositions, PositionAttention
from boxwright.layers.resnet import (
    STAGES,
    Bottleneck,
    C5Stride,
    ResNetBody,
    StageBlocks,
    StageName,
    blocks_per_stage,
    has_bottlenecks_at,
)

__all__ = ["BoTNet"]

BottleneckDepth = Literal[50, 101, 152, 200]


class BoTNet(ResNetBody):
    """ResNet whose blocks of c5 have attention over the whole map instead of a 3 x 3 convolution.

    A replaced block is norm(1 x 1), ReLU, attention, 2 x 2 average pooling where the stride was, norm, ReLU,
    norm(1 x 1), and the shortcut. It starts as the shortcut alone. Attention has no use for a padding mask: what lies
    on padding takes part, as in a convolution.

    Args:
        depth: 50, 101, 152 or 200, or a list of how many blocks c2, c3, c4 and c5 have: 3,4,23,12 is T5 and T7. The
            basic blocks of 18 and 34 have nothing that attention could replace.
        levels: stages that go out, of c2 (stride 4) to c5, which is among them.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine.
        frozen_stages: how many stages stay as they are loaded, their norms too: 0 none, 1 the stem, 2 stem and c2, up
            to 5.
        attention: which of c5's blocks have it, as the paper writes them: (1, 1, 1) all three, (0, 1, 1) not the first,
            which is the only one to look at the map of c4; (0, 0, 0) is ResNet. All where None.
        c5_stride: of c5 over c4; 1 is BoTNet-S1, whose c5 has stride 16, and so have all of BoTNet-T.
        positions: of the logits: ``relative``, ``absolute`` or ``none``.
        content: whether logits depend on what the cell that is looked at shows. Without it they depend on its position
            alone, which must then not be ``none``.
        num_heads: attention heads.
        block: what blocks have beyond convolutions and attention: BoTNet-T has SiLU and squeeze-excitation.
        image_size: height and width that the position tables are made for, an entry to each cell: that of the network
            inputs that it is trained on, and of much larger ones only some entries would ever be trained. Inputs whose
            longer side is another one are looked at with interpolated tables; so are checkpoints with tables of
            another size. Narrower inputs have a part of the tables.

    Source: Srinivas et al., BoTNet, CVPR 2021, and the code of a block that its authors published. Parameters and
    multiply-adds are those of the paper's table 1, and of its BoTNet-T. Checked against bottleneck-transformer-pytorch
    0.1.4 without its 3 x 3 shortcut: same weights, same outputs and gradients. Differs in initial weights of
    convolutions, which are ResNet's here (variance by what goes out, not by what comes in); and, with frozen norms, in
    the block's last convolution starting as zero instead of its norm's scale, which would stay so.

    The paper says that squeeze-excitation is in blocks of convolutions only. Its parameters of T3 to T7 are those of
    squeeze-excitation in ``all`` blocks, counting neither norms, biases nor position tables.
    """

    size_option = "image_size"

    def __init__(
        self,
        *,
        depth: BottleneckDepth | StageBlocks = 50,
        levels: tuple[StageName, ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        attention: tuple[int, ...] | None = None,
        c5_stride: C5Stride = 2,
        positions: MapPositions = "relative",
        content: bool = True,
        num_heads: int = 4,
        block: BlockOptions = BlockOptions(),
        image_size: int = 224,
    ) -> None:
        if not has_bottlenecks_at(depth):
            raise ValueError(f"depth {depth} has basic blocks, in which there is nothing that attention could replace")
        replaced = (1,) * blocks_per_stage(depth)[-1] if attention is None else attention
        _check(levels, replaced, blocks_per_stage(depth)[-1], image_size)
        if block.shortcut_activation == "attention" and not replaced[0]:
            raise ValueError(
                f"shortcut_activation attention is of c5's first block, which has no attention with {list(replaced)}"
            )
        super().__init__(
            depth=depth,
            levels=levels,
            width=width,
            norm=norm,
            frozen_stages=frozen_stages,
            c5_stride=c5_stride,
            block=block,
        )
        stride = c5_stride
        cells = -(-image_size // 16)
        blocks: list[Bottleneck] = list(getattr(self, STAGES["c5"]))
        for bottleneck, has_attention in zip(blocks, replaced, strict=True):
            if has_attention:
                bottleneck.conv2 = PositionAttention(
                    8 * width, (cells, cells), num_heads=num_heads, positions=positions, content=content, stride=stride
                )
                bottleneck.start_as_shortcut()
                if block.squeeze_excitation == "convolutions":
                    bottleneck.se = None
                if block.shortcut_activation == "attention":
                    bottleneck.activate_shortcut(block.activation)
            cells, stride = -(-cells // stride), 1
        if frozen_stages == 5:
            self.requires_grad_(False)


def _check(levels: tuple[StageName, ...], attention: tuple[int, ...], num_blocks: int, image_size: int) -> None:
    """Raise ``ValueError`` for options that there are not."""
    check_counts({"image_size": image_size})
    if len(attention) != num_blocks or not set(attention) <= {0, 1}:
        raise ValueError(f"attention is a 0 or a 1 for each of c5's {num_blocks} blocks, not {attention}")
    if "c5" not in levels:
        raise ValueError(f"attention is in c5, which is not among the levels {list(levels)}")
