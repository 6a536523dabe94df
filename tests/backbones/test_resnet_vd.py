"""ResNet-vd: its shape, and what is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boxwright.backbones.resnet_vd import BasicBlockVD, BottleneckVD, ResNetVD
from boxwright.layers.ceil_pooling import AvgPoolCeil
from boxwright.layers.conv import ConvNorm, FrozenBatchNorm2d
from boxwright.structures import Level


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_levels_of_the_published_depths() -> None:
    with torch.device("meta"):
        assert ResNetVD(depth=18).out_spec == {"c3": Level(128, 8), "c4": Level(256, 16), "c5": Level(512, 32)}
        assert ResNetVD(depth=101).out_spec == {"c3": Level(512, 8), "c4": Level(1024, 16), "c5": Level(2048, 32)}


def test_published_parameter_count_of_depth_50() -> None:
    with torch.device("meta"):
        frozen, plain = ResNetVD(depth=50, norm="frozen"), ResNetVD(depth=50)
    assert num_parameters(frozen) == 23_474_016
    # Scale and shift of every norm.
    assert num_parameters(plain) == 23_474_016 + 53_248


@pytest.mark.parametrize(
    ("depth", "block", "expected"), [(34, BasicBlockVD, [3, 4, 6, 3]), (101, BottleneckVD, [3, 4, 23, 3])]
)
def test_blocks_per_stage(depth: int, block: type[nn.Module], expected: list[int]) -> None:
    with torch.device("meta"):
        backbone = ResNetVD(depth=depth)  # type: ignore[arg-type]
    assert [len(stage) for stage in backbone.stages.values()] == expected
    assert all(isinstance(child, block) for stage in backbone.stages.values() for child in stage)


def test_strides_sit_in_the_3x3_convolutions_and_in_the_pooled_shortcuts() -> None:
    backbone = ResNetVD(depth=50, width=4)
    for name, stage in backbone.stages.items():
        for position, block in enumerate(stage):
            stride = 2 if position == 0 and name != "c2" else 1
            assert [c.conv.stride[0] for c in (block.conv1, block.conv2, block.conv3)] == [1, stride, 1]
        first = stage[0].shortcut
        if name == "c2":
            assert isinstance(first, ConvNorm)
        else:
            assert isinstance(first[0], AvgPoolCeil)
            assert first[1].conv.stride == (1, 1)
        assert all(isinstance(block.shortcut, nn.Identity) for block in list(stage)[1:])


def test_shortcut_averages_over_what_is_there_at_odd_sizes() -> None:
    backbone = ResNetVD(depth=18, width=2)
    pool = backbone.stages["c3"][0].shortcut[0]
    x = torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 7.0], [2.0, 4.0, 9.0]]).view(1, 1, 3, 3)
    torch.testing.assert_close(pool(x), torch.tensor([[2.0, 6.0], [3.0, 9.0]]).view(1, 1, 2, 2))


def test_block_is_the_sum_of_its_branch_and_its_shortcut() -> None:
    torch.manual_seed(0)
    block = ResNetVD(depth=50, width=4).eval().stages["c4"][0]
    x = torch.randn(1, 32, 6, 6)
    expected = torch.relu(block.conv3(block.conv2(block.conv1(x))) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected)
    assert (block.conv3(block.conv2(block.conv1(x))) < 0).any()


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 5])
def test_frozen_stages_are_the_first_ones(frozen_stages: int) -> None:
    backbone = ResNetVD(depth=18, width=4, frozen_stages=frozen_stages)
    stages = [backbone.stem, *backbone.stages.values()]
    for index, stage in enumerate(stages):
        assert {p.requires_grad for p in stage.parameters()} == {index >= frozen_stages}


@pytest.mark.parametrize("frozen_stages", range(6))
def test_norms_of_frozen_stages_and_no_others_are_frozen(frozen_stages: int) -> None:
    backbone = ResNetVD(depth=18, width=8, frozen_stages=frozen_stages)
    for index, stage in enumerate([backbone.stem, *backbone.stages.values()]):
        norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d)]
        assert norms
        assert {isinstance(norm, FrozenBatchNorm2d) for norm in norms} == {index < frozen_stages}


def test_frozen_norms_are_constant_in_training() -> None:
    torch.manual_seed(0)
    backbone = ResNetVD(depth=18, width=4, norm="frozen").train()
    assert not any(isinstance(child, nn.BatchNorm2d) for child in backbone.modules())
    assert any(isinstance(child, FrozenBatchNorm2d) for child in backbone.modules())
    x = torch.rand(2, 3, 64, 64)
    together, alone = backbone(x), backbone(x[:1])
    for name in together:
        torch.testing.assert_close(together[name][:1], alone[name], rtol=1e-4, atol=1e-5)


def test_a_chosen_level_is_the_same_as_among_all() -> None:
    torch.manual_seed(0)
    every = ResNetVD(depth=18, width=4, levels=("c2", "c3", "c4", "c5")).eval()
    some = ResNetVD(depth=18, width=4, levels=("c2", "c4")).eval()
    weights = every.state_dict()
    some.load_state_dict({name: weights[name] for name in some.state_dict()})
    x = torch.rand(1, 3, 64, 64)
    for name, level in some(x).items():
        torch.testing.assert_close(level, every(x)[name], rtol=0, atol=0)
    assert list(some(x)) == ["c2", "c4"]


def test_stages_beyond_the_last_level_are_not_built() -> None:
    # Their parameters would never get a gradient, and their maps never be looked at.
    assert list(ResNetVD(depth=18, width=4, levels=("c2", "c4")).stages) == ["c2", "c3", "c4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, r"levels are some of \['c2', 'c3', 'c4', 'c5'\], fine to coarse and each once, not \[\]"),
        ({"levels": ("c5", "c3")}, "fine to coarse"),
        ({"levels": ("c3", "c3")}, "each once"),
        ({"width": 7}, "width is a positive even number, not 7"),
        ({"frozen_stages": 6}, "frozen_stages is between 0"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNetVD(depth=18, **options)  # type: ignore[arg-type]
