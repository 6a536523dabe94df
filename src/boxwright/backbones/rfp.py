"""Recursive feature pyramid: a backbone that looks at the image twice."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.aspp import ASPP
from boxwright.layers.block_options import Atrous
from boxwright.layers.conv import Norm
from boxwright.layers.feature_pyramid import ExtraKind, ExtraLevels, FeaturePyramid
from boxwright.layers.resnet import Depth, ResNetBody, StageName
from boxwright.structures import Features, ResidualBlock, Spec

__all__ = ["RFP"]

FED_BACK = ("c3", "c4", "c5")


class RFP(nn.Module):
    """ResNet and FPN run several times; the FPN of one step feeds the ResNet of the next, on the same image.

    p^1 = FPN(ResNet(image));  q = FPN(ResNet(image, feedback_l(ASPP(p_l^t))));
    p_l^{t+1} = w * q_l + (1 - w) * p_l^t with w = sigmoid(fusion(q_l)).

    The feedback is added in the first block of c3, c4 and c5, before its last ReLU. It starts as zero and w as 1/2:
    a new RFP puts out what the FPN alone would.

    Args:
        depth: of the ResNet; 18 and 34 have basic blocks, 50, 101, 152 and 200 bottlenecks.
        levels: which stages go through the FPN, of c2 (stride 4) to c5 (stride 32); those beyond the last are not
            built. At least one of c3, c4 and c5, which are those that the feedback reaches.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine.
        frozen_stages: how many stages of every ResNet stay as they are loaded, their norms too: 0 none, 1 the stem, 2
            stem and c2, up to 5. The feedback is trained in any case.
        out_channels: width of every level that goes out.
        extra_levels: levels to add beyond the coarsest, each half the size: 1 for P6, 2 for P6 and P7.
        extra: what they are made of, as in ``fpn``: ``max_pool``, or convolutions of stride 2 on the coarsest level of
            the ResNet (``conv_input``) or of the FPN (``conv_output``).
        extra_relu: a ReLU before each convolution of extra levels but the first.
        steps: how often the image is looked at, at least 2; the paper also has 3.
        shared: whether all steps have one ResNet and its feedback. Otherwise (the paper) each has its own; all ResNets
            start from the same weights. FPN, ASPP and fusion are always the same ones.
        atrous: of the 3 x 3 convolutions in c3, c4 and c5: ``none``, or ``switchable`` for the paper's switchable
            atrous convolution, at dilations 1 and 3.

    Source: Qiao et al., DetectoRS, CVPR 2021, sections 3 and 4. Checked against ``RFP``, ``DetectoRS_ResNet`` and
    ``SAConv2d`` of mmdet 3.3.0 and mmcv a8073c7: same weights, same outputs and gradients. Differs in basic blocks,
    which there have neither feedback nor switches; in standardizing the weights of switchable convolutions only, where
    the published configurations do so with every convolution of the ResNets; in levels, which there always begin with
    c2; and in starting the ResNets of all steps alike without pretrained weights too. Switchable convolutions are
    not deformable here.
    """

    def __init__(
        self,
        *,
        depth: Depth = 50,
        levels: tuple[StageName, ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        out_channels: int = 256,
        extra_levels: int = 0,
        extra: ExtraKind = "max_pool",
        extra_relu: bool = True,
        steps: int = 2,
        shared: bool = False,
        atrous: Atrous = "none",
    ) -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(f"steps is at least 2, not {steps}; one step is the backbone resnet with the neck fpn")
        body = ResNetBody(
            depth=depth, levels=levels, width=width, norm=norm, frozen_stages=frozen_stages, atrous=atrous
        )
        fed_back = {name: level for name, level in body.out_spec.items() if name in FED_BACK}
        if not fed_back:
            raise ValueError(
                f"levels need one of {list(FED_BACK)}, where the feedback goes to, not only {list(levels)}"
            )
        self.steps = steps
        again = 1 if shared else steps - 1
        self.bodies = nn.ModuleList([body, *(deepcopy(body) for _ in range(0 if shared else again))])
        self.pyramid = FeaturePyramid(body.out_spec, out_channels)
        self.extra = ExtraLevels(body.out_spec, out_channels, extra_levels, extra, relu=extra_relu)
        self.aspp = ASPP(out_channels, max(out_channels // 4, 1))
        self.feedback = nn.ModuleList(
            nn.ModuleDict(
                {name: nn.Conv2d(self.aspp.out_channels, level.channels, 1) for name, level in fed_back.items()}
            )
            for _ in range(again)
        )
        self.fusion = nn.Conv2d(out_channels, 1, 1)
        for parameter in (*self.feedback.parameters(), *self.fusion.parameters()):
            nn.init.zeros_(parameter)
        self.out_spec: Spec = {**self.pyramid.out_spec, **self.extra.out_spec}
        self.coarsest = levels[-1]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        levels = self._pyramid(self.bodies[0](images))
        convolutions = [cast(nn.ModuleDict, convs) for convs in self.feedback]
        for step in range(1, self.steps):
            # Shared parts are the last ones of their lists in every step.
            body = self.bodies[min(step, len(self.bodies) - 1)]
            convs = convolutions[min(step, len(convolutions)) - 1]
            feedback = {name: conv(self.aspp(levels[name])) for name, conv in convs.items()}
            new = self._pyramid(body(images, feedback))
            levels = {
                name: torch.lerp(old, new[name], self.fusion(new[name]).sigmoid()) for name, old in levels.items()
            }
        return levels

    def copies(self) -> Iterator[tuple[str, nn.Module]]:
        """List the ResNets by their names in the checkpoint."""
        for i, body in enumerate(self.bodies):
            yield f"bodies.{i}", body

    def residual_blocks(self) -> Iterator[ResidualBlock]:
        """List the blocks of all ResNets, with their layers in the order of execution."""
        for path, body in self.copies():
            for block in cast(ResNetBody, body).residual_blocks():
                yield ResidualBlock(tuple(f"{path}.{layer}" for layer in block.layers))

    def _pyramid(self, features: Features) -> Features:
        levels = self.pyramid(features)
        return {**levels, **self.extra(features[self.coarsest], levels[self.coarsest])}
