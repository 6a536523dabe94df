"""ResNet, the backbone of DETR, Deformable DETR and most two-stage detectors."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import FrozenBatchNorm2d, Norm, fold
from boxwright.structures import Features, Level, Spec

__all__ = ["ResNet"]

BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = {"c2": "layer1", "c3": "layer2", "c4": "layer3", "c5": "layer4"}
NORMS: dict[str, type[nn.BatchNorm2d] | type[FrozenBatchNorm2d]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
}

Dilation = Literal["none", "after_first", "all"]


class ResNet(nn.Module):
    """ResNet with the stride in the 3 x 3 convolution (v1.5) and, by choice, a dilated c5 of stride 16 (DC5).

    Args:
        depth: 18 and 34 have basic blocks; 50, 101 and 152 bottlenecks.
        levels: which stages are handed on, of c2 (stride 4) to c5; those beyond the last are not built.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine, as DETR and its followers train.
        frozen_stages: how many stages stay as they are loaded, their norms too: 0 none, 1 the stem, 2 stem and c2 (as
            DETR), up to 5.
        dilation: of c5's 3 x 3 convolutions. ``none``: c5 has stride 32. Otherwise it has stride 16 and they have
            dilation 2: those ``after_first``, which had the stride (torchvision, DETR), or ``all`` (FCIS, detectron2).

    Source: He et al., Deep Residual Learning, CVPR 2016, table 1; the dilated c5 from Li et al., FCIS, CVPR 2017,
    and Carion et al., DETR, ECCV 2020, section 4. Checked against torchvision 0.29.2, whose names in checkpoints
    these are: same weights, same outputs and gradients. Differs in having no classifier, in adding in place, and in
    a dilated c5 for basic blocks too, which torchvision refuses. ``after_first`` is the hole algorithm to the letter:
    every second cell of its c5 is the c5 of stride 32. With ``all`` this does not hold.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        levels: tuple[Literal["c2", "c3", "c4", "c5"], ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        dilation: Dilation = "none",
    ) -> None:
        super().__init__()
        if depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"depth is one of {sorted(BLOCKS_PER_STAGE)}, not {depth}")
        if not levels or list(levels) != [name for name in STAGES if name in levels]:
            raise ValueError(f"levels are some of {list(STAGES)}, fine to coarse and each once, not {list(levels)}")
        if width < 1:
            raise ValueError(f"width is at least 1, not {width}")
        if not 0 <= frozen_stages <= 5:
            raise ValueError(f"frozen_stages is between 0 (none) and 5 (all), not {frozen_stages}")
        if dilation != "none" and "c5" not in levels:
            raise ValueError(f"dilation {dilation} is of c5, which is not among the levels {list(levels)}")
        norms: list[Norm] = ["frozen" if stage < frozen_stages else norm for stage in range(5)]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = NORMS[norms[0]](width)
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        channels, total_stride = width, 4
        self.out_spec: Spec = {}
        # What lies beyond the last level that is handed on would never be trained.
        self.built = list(STAGES)[: list(STAGES).index(levels[-1]) + 1]
        for index, name in enumerate(self.built):
            dilated = dilation if name == "c5" else "none"
            stride = 2 if index > 0 and dilated == "none" else 1
            total_stride *= stride
            blocks = []
            for position in range(BLOCKS_PER_STAGE[depth][index]):
                dilations = _dilations(dilated, position)
                blocks.append(block(channels, width * 2**index, stride, dilations, norm=norms[index + 1]))
                channels, stride = width * 2**index * block.expansion, 1
            self.add_module(STAGES[name], nn.Sequential(*blocks))
            if name in levels:
                self.out_spec[name] = Level(channels, total_stride)
        self.reset_parameters()
        frozen = [self.conv1, *(getattr(self, STAGES[name]) for name in self.built)]
        for stage in frozen[:frozen_stages]:
            stage.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Normal weights that keep the variance of the gradient through a ReLU (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu_(), kernel_size=3, stride=2, padding=1)
        features = {}
        for name in self.built:
            x = getattr(self, STAGES[name])(x)
            if name in self.out_spec:
                features[name] = x
        return features

    def fold_norms(self) -> None:
        """Put the stem's norm into its convolution, for inference; the blocks do so themselves."""
        _fold_pairs(self, 1)


def _dilations(dilation: Dilation, position: int) -> tuple[int, int]:
    """Of the first 3 x 3 convolution in the block at ``position`` of its stage, and of one that may come after it."""
    if dilation == "none":
        return 1, 1
    return (1 if dilation == "after_first" and position == 0 else 2), 2


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), NORMS[norm](out_channels))


def _fold_pairs(module: nn.Module, count: int) -> None:
    """Fold bn1 into conv1, bn2 into conv2, ... up to ``count``, and the downsample's norm."""
    for i in range(1, count + 1):
        norm = getattr(module, f"bn{i}")
        if not isinstance(norm, nn.Identity):
            setattr(module, f"conv{i}", fold(getattr(module, f"conv{i}"), norm))
            setattr(module, f"bn{i}", nn.Identity())
    downsample = getattr(module, "downsample", None)
    if downsample is not None and not isinstance(downsample[1], nn.Identity):
        downsample[0], downsample[1] = fold(downsample[0], downsample[1]), nn.Identity()


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, the stride in the first, and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, dilations: tuple[int, int], *, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride, dilations[0])
        self.bn1 = NORMS[norm](channels)
        self.conv2 = _conv3x3(channels, channels, 1, dilations[1])
        self.bn2 = NORMS[norm](channels)
        self.downsample = _downsample(in_channels, channels, stride, norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()  # type: ignore[no-any-return]

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        _fold_pairs(self, 2)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, dilations: tuple[int, int], *, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = NORMS[norm](channels)
        self.conv2 = _conv3x3(channels, channels, stride, dilations[0])
        self.bn2 = NORMS[norm](channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = NORMS[norm](channels * 4)
        self.downsample = _downsample(in_channels, channels * 4, stride, norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()  # type: ignore[no-any-return]

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        _fold_pairs(self, 3)
