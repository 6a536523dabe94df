"""ResNet, the backbone of DETR, Deformable DETR and most two-stage detectors."""

from __future__ import annotations

from boxwright.layers.block_options import BlockOptions
from boxwright.layers.conv import NORM_EPS, Norm
from boxwright.layers.resnet import Depth, Dilation, ResNetBody, StageBlocks, StageName, StrideIn

__all__ = ["ResNet"]


class ResNet(ResNetBody):
    """ResNet, its stride in the 3 x 3 convolution (v1.5) or the first one, and by choice a dilated c5 (DC5).

    Args:
        depth: 18 and 34 have basic blocks; 50, 101, 152 and 200 bottlenecks, and so has a list of how many blocks c2,
            c3, c4 and c5 have: 3,4,6,3 is 50.
        levels: stages that go out, of c2 (stride 4) to c5; those beyond the last are not built.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine, as DETR and its followers train.
        frozen_stages: how many stages stay as they are loaded, their norms too: 0 none, 1 the stem, 2 stem and c2 (as
            DETR), up to 5.
        dilation: of c5's 3 x 3 convolutions. ``none``: c5 has stride 32. Otherwise it has stride 16 and they have
            dilation 2: those ``after_first``, which had the stride (torchvision, DETR), or ``all`` (FCIS, detectron2).
        stride_in: convolution of bottlenecks that has their stride: ``3x3``, or ``1x1``, the first one, as in the paper
            and in weights from Caffe (style caffe in mmdetection, STRIDE_IN_1X1 in detectron2).
        norm_eps: added to the variances of norms; 0 in torchvision's first Faster R-CNN, Mask R-CNN and RetinaNet.
        block: what blocks have beyond their convolutions: squeeze-excitation (SENet), SiLU, stochastic depth.

    Source: He et al., Deep Residual Learning, CVPR 2016, table 1; the dilated c5 from Li et al., FCIS, CVPR 2017,
    and Carion et al., DETR, ECCV 2020, section 4. Checked against torchvision 0.29.2, whose names in checkpoints
    these are: same weights, same outputs and gradients. Differs in having no classifier, in adding in place, and in
    a dilated c5 for basic blocks too, which torchvision refuses. ``after_first`` is the hole algorithm to the letter:
    every second cell of its c5 is the c5 of stride 32. With ``all`` this does not hold. ``stride_in`` 1x1 was compared
    with mmdetection 3.3.0's ResNet of style caffe; depth 200, and squeeze-excitation with ReLU and SiLU, with timm
    1.0.31: same weights, same outputs and gradients.
    """

    def __init__(
        self,
        *,
        depth: Depth | StageBlocks = 50,
        levels: tuple[StageName, ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        dilation: Dilation = "none",
        stride_in: StrideIn = "3x3",
        norm_eps: float = NORM_EPS,
        block: BlockOptions = BlockOptions(),
    ) -> None:
        if block.shortcut_activation == "attention":
            raise ValueError("shortcut_activation attention is of BoTNet's blocks; ResNet has none: take none or all")
        super().__init__(
            depth=depth,
            levels=levels,
            width=width,
            norm=norm,
            frozen_stages=frozen_stages,
            dilation=dilation,
            stride_in=stride_in,
            norm_eps=norm_eps,
            block=block,
        )
