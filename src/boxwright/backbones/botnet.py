"""BoTNet: ResNet with self-attention in place of the last 3 x 3 convolutions."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from boxwright.layers.conv import Norm
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.layers.position_attention import MapPositions, PositionAttention
from boxwright.layers.resnet import STAGES, Bottleneck, C5Stride, ResNetBody, StageName

__all__ = ["BoTNet"]

BottleneckDepth = Literal[50, 101, 152]


class BoTNet(ResNetBody):
    """ResNet whose blocks of c5 have attention over the whole map instead of a 3 x 3 convolution.

    A replaced block is norm(1 x 1), ReLU, attention, 2 x 2 average pooling where the stride was, norm, ReLU,
    norm(1 x 1), and the shortcut. It starts as the shortcut alone. Attention has no use for a padding mask: what lies
    on padding takes part, as in a convolution.

    Args:
        depth: 50, 101 or 152; the basic blocks of 18 and 34 have nothing that attention could replace.
        levels: stages that go out, of c2 (stride 4) to c5, which is among them.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine.
        frozen_stages: how many stages stay as they are loaded, their norms too: 0 none, 1 the stem, 2 stem and c2, up
            to 5.
        attention: which of c5's three blocks have it, as the paper writes them: (1, 1, 1) all, (0, 1, 1) not the first,
            which is the only one to look at the map of c4; (0, 0, 0) is ResNet.
        c5_stride: of c5 over c4; 1 is BoTNet-S1, whose c5 has stride 16.
        positions: of the logits: ``relative``, ``absolute`` or ``none``.
        content: whether logits depend on what the cell that is looked at shows. Without it they depend on its position
            alone, which must then not be ``none``.
        num_heads: attention heads.
        shortcut_relu: the authors' code has a ReLU on the convolution of the first block's shortcut, after its norm;
            ResNet and the paper's figure have none.
        image_size: height and width that the position tables are made for, an entry to each cell: that of the network
            inputs that it is trained on, and of much larger ones only some entries would ever be trained. Inputs whose
            longer side is another one are looked at with interpolated tables; so are checkpoints with tables of
            another size. Narrower inputs have a part of the tables.

    Source: Srinivas et al., BoTNet, CVPR 2021, and the code of a block that its authors published. Parameters and
    multiply-adds are those of the paper's table 1. Checked against bottleneck-transformer-pytorch 0.1.4 without its
    3 x 3 shortcut: same weights, same outputs and gradients. Differs in initial weights of convolutions, which are
    ResNet's here (variance by what goes out, not by what comes in); and, with frozen norms, in the block's last
    convolution starting as zero instead of its norm's scale, which would stay so.
    """

    size_option = "image_size"

    def __init__(
        self,
        *,
        depth: BottleneckDepth = 50,
        levels: tuple[StageName, ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        attention: tuple[int, int, int] = (1, 1, 1),
        c5_stride: C5Stride = 2,
        positions: MapPositions = "relative",
        content: bool = True,
        num_heads: int = 4,
        shortcut_relu: bool = False,
        image_size: int = 224,
    ) -> None:
        check_choice("depth", depth, get_args(BottleneckDepth))
        _check(levels, attention, shortcut_relu, image_size)
        super().__init__(
            depth=depth, levels=levels, width=width, norm=norm, frozen_stages=frozen_stages, c5_stride=c5_stride
        )
        stride = c5_stride
        cells = -(-image_size // 16)
        blocks: list[Bottleneck] = list(getattr(self, STAGES["c5"]))
        for block, replaced in zip(blocks, attention, strict=True):
            if replaced:
                block.conv2 = PositionAttention(
                    8 * width, (cells, cells), num_heads=num_heads, positions=positions, content=content, stride=stride
                )
                _start_as_shortcut(block)
            cells, stride = -(-cells // stride), 1
        if shortcut_relu:
            assert blocks[0].downsample is not None
            blocks[0].downsample.append(nn.ReLU(inplace=True))
        if frozen_stages == 5:
            self.requires_grad_(False)


def _start_as_shortcut(block: Bottleneck) -> None:
    trained = isinstance(block.bn3, nn.BatchNorm2d)
    nn.init.zeros_(block.bn3.weight if trained else block.conv3.weight)


def _check(
    levels: tuple[StageName, ...], attention: tuple[int, int, int], shortcut_relu: bool, image_size: int
) -> None:
    """Raise ``ValueError`` for options that there are not."""
    check_counts({"image_size": image_size})
    if len(attention) != 3 or not set(attention) <= {0, 1}:
        raise ValueError(f"attention is a 0 or a 1 for each of c5's three blocks, not {attention}")
    if "c5" not in levels:
        raise ValueError(f"attention is in c5, which is not among the levels {list(levels)}")
    if shortcut_relu and not attention[0]:
        raise ValueError(f"shortcut_relu is of c5's first block, which has no attention with {attention}")
