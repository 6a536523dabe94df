"""Non-local network: ResNet with attention over the whole map between its blocks."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import NORM_EPS, Norm
from boxwright.layers.non_local_block import NonLocalBlock
from boxwright.layers.option_checks import check_choice
from boxwright.layers.resnet import BLOCKS_PER_STAGE, STAGES, Depth, ResNetBody, StageName

__all__ = ["NonLocal"]

NumBlocks = Literal[1, 5, 10]

BLOCKS_TO_FOLLOW = {5: {"c3": 2, "c4": 3}, 10: {"c3": 4, "c4": 6}}
"""Number of non-local blocks in each stage, by their number in all."""


class NonLocal(ResNetBody):
    """ResNet in which non-local blocks follow some blocks of c3 and c4. A new one puts out what the ResNet does.

    Attention has no use for a padding mask: what lies on padding takes part, as in a convolution.

    Args:
        depth: 18 and 34 have basic blocks; 50, 101, 152 and 200 bottlenecks.
        levels: stages that go out, of c2 (stride 4) to c5 (stride 32); those beyond the last are not built.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine.
        frozen_stages: how many stages stay as they are loaded, their norms and non-local blocks too: 0 none, 1 the
            stem, 2 stem and c2, up to 5.
        num_blocks: how many non-local blocks: 1, before the last block of c4, as the paper detects objects in COCO; 5,
            of which 3 follow every other block of c4 and 2 every other one of c3; 10, after all blocks of both. In
            deeper ResNets as many, spread evenly.
        subsample: every cell looks at the largest of 2 x 2 cells rather than at all, as everywhere in the paper.
        norm_eps: added to the variances of the ResNet's norms.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, sections 3.3, 5.1 and 6; positions in ResNet-101 from
    facebookresearch/video-nonlocal-net 4b5d2dd (``resnet_video.py``), which has 5 blocks: after blocks 2 and 4 of c3,
    and 7, 14 and 21 of c4; for 10 it has none. ``NonLocalBlock`` says what it was checked against. ResNet's names in
    checkpoints stay: weights without non-local blocks load.
    """

    def __init__(
        self,
        *,
        depth: Depth = 50,
        levels: tuple[StageName, ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        num_blocks: NumBlocks = 1,
        subsample: bool = True,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__(
            depth=depth, levels=levels, width=width, norm=norm, frozen_stages=frozen_stages, norm_eps=norm_eps
        )
        check_choice("num_blocks", num_blocks, get_args(NumBlocks))
        self.non_local = nn.ModuleDict()
        for name, positions in _positions(depth, num_blocks).items():
            if name not in self.built:
                raise ValueError(f"non-local blocks are in {name}, which the levels {list(levels)} do not reach")
            index, stage = list(STAGES).index(name), getattr(self, STAGES[name])
            channels = width * 2**index * stage[0].expansion
            frozen = index + 2 <= frozen_stages
            for position in positions:
                block = NonLocalBlock(channels, norm="frozen" if frozen else norm, subsample=subsample)
                self.non_local[f"{STAGES[name]}_{position}"] = block.requires_grad_(not frozen)

    def stage(
        self, name: str, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """Apply the blocks of one stage, and the non-local ones after them."""
        for position, block in enumerate(getattr(self, STAGES[name])):
            x, feedback = block(x, feedback), None
            key = f"{STAGES[name]}_{position}"
            if key in self.non_local:
                x = self.non_local[key](x)
        return x


def _positions(depth: Depth, num_blocks: NumBlocks) -> dict[str, list[int]]:
    """List the blocks, counted from 0, that a non-local block follows, by stage."""
    lengths = dict(zip(STAGES, BLOCKS_PER_STAGE[depth], strict=True))
    if num_blocks == 1:
        return {"c4": [lengths["c4"] - 2]}
    positions = {}
    for name, count in BLOCKS_TO_FOLLOW[num_blocks].items():
        if lengths[name] < count:
            raise ValueError(f"num_blocks {num_blocks} needs {count} blocks in {name}, and depth {depth} has fewer")
        step = lengths[name] // count
        positions[name] = [step * (i + 1) - 1 for i in range(count)]
    return positions
