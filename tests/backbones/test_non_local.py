"""The non-local network: where its blocks are, what it starts as, weights of ResNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from shaken_backbone import make_images, shake_backbone
from torch import nn

from boxwright.backbones.non_local import NonLocal
from boxwright.backbones.resnet import ResNet
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.layers.folding import fold_norms
from boxwright.layers.non_local_block import NonLocalBlock
from boxwright.structures import Level

SMALL: dict[str, Any] = {"width": 4}


def non_local(**options: Any) -> NonLocal:
    torch.manual_seed(0)
    return NonLocal(**SMALL | options)


def shaken(backbone: NonLocal) -> NonLocal:
    """Away from zeros and ones, in evaluation."""
    shake_backbone(backbone)
    return backbone.eval()


@pytest.mark.parametrize(
    ("depth", "num_blocks", "positions"),
    [
        (18, 1, ["3_0"]),
        (34, 5, ["2_1", "2_3", "3_1", "3_3", "3_5"]),
        (50, 1, ["3_4"]),
        (50, 5, ["2_1", "2_3", "3_1", "3_3", "3_5"]),
        (50, 10, ["2_0", "2_1", "2_2", "2_3", "3_0", "3_1", "3_2", "3_3", "3_4", "3_5"]),
        (101, 1, ["3_21"]),
        # video-nonlocal-net: after blocks whose number modulo 7 is 6.
        (101, 5, ["2_1", "2_3", "3_6", "3_13", "3_20"]),
        (101, 10, ["2_0", "2_1", "2_2", "2_3", "3_2", "3_5", "3_8", "3_11", "3_14", "3_17"]),
        (152, 5, ["2_3", "2_7", "3_11", "3_23", "3_35"]),
    ],
)
def test_positions(depth: Any, num_blocks: Any, positions: list[str]) -> None:
    ours = non_local(depth=depth, num_blocks=num_blocks, width=2)
    assert [name.removeprefix("layer") for name in ours.non_local] == positions
    channels = (2 if depth < 50 else 8) * 2
    assert {block.embed.in_channels for name, block in ours.non_local.items() if "r2" in name} <= {channels}
    order: list[str] = []
    stages = [ours.layer2, ours.layer3]
    for stage, blocks in zip((2, 3), stages, strict=True):
        for position, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, at=f"{stage}_{position}": order.append(at))
    for name, block in ours.non_local.items():
        block.register_forward_hook(lambda *_, at=name: order.append(at))
    ours.eval()(make_images(32, 32))
    for name in ours.non_local:
        assert order[order.index(name) - 1] == name.removeprefix("layer")


def test_numbers_of_parameters() -> None:
    with torch.device("meta"):
        block = 3 * (1024 * 512 + 512) + 512 * 1024 + 2 * 1024
        at_c3 = 3 * (512 * 256 + 256) + 256 * 512 + 2 * 512
        resnet = sum(p.numel() for p in ResNet().parameters())
        for num_blocks, more in ((1, block), (5, 3 * block + 2 * at_c3), (10, 6 * block + 4 * at_c3)):
            ours = NonLocal(num_blocks=num_blocks)  # type: ignore[arg-type]
            assert sum(p.numel() for p in ours.parameters()) == resnet + more
            assert ours.out_spec == {"c3": Level(512, 8), "c4": Level(1024, 16), "c5": Level(2048, 32)}


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("training", [True, False])
def test_a_new_one_does_what_the_resnet_does_whose_weights_it_takes(norm: Any, training: bool) -> None:
    resnet = ResNet(width=4, norm=norm)
    ours = non_local(num_blocks=5, norm=norm)
    result = ours.load_state_dict(resnet.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith("non_local.") for name in result.missing_keys)
    expected = resnet.train(training)(make_images())
    for name, level in ours.train(training)(make_images()).items():
        torch.testing.assert_close(level, expected[name], rtol=0, atol=0)


def test_names_are_those_of_torchvision_beside_the_new_ones() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50().state_dict()
        ours = NonLocal(num_blocks=10, levels=("c2", "c3", "c4", "c5")).state_dict()
    names = [(name, tensor.shape) for name, tensor in ours.items() if not name.startswith("non_local.")]
    assert names == [(name, tensor.shape) for name, tensor in theirs.items() if not name.startswith("fc.")]


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_its_blocks_are_trained_away_from_the_identity(norm: Any) -> None:
    ours = non_local(num_blocks=5, norm=norm).train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(x.square().mean() for x in ours(make_images()).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    for block in ours.non_local.values():
        assert isinstance(block, NonLocalBlock)
        assert block.embed.weight.grad is not None
        for part in block.embed.weight.grad.chunk(3):
            assert part.abs().max() > 0


def test_frozen_stages_freeze_the_blocks_in_them() -> None:
    ours = non_local(num_blocks=5, frozen_stages=3)
    assert not any(p.requires_grad for p in ours.layer2.parameters())
    for name, block in ours.non_local.items():
        assert all(p.requires_grad == name.startswith("layer3") for p in block.parameters())
    before = {name: tensor.clone() for name, tensor in ours.non_local.state_dict().items() if "layer2" in name}
    ours.train()(make_images())
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in ours.non_local.state_dict().items() if name in before
    )


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (33, 31), (100, 75), (16, 16), (1, 1)])
def test_maps_of_any_size_are_trained_on(size: tuple[int, int], subsample: bool) -> None:
    ours = shaken(non_local(num_blocks=5, subsample=subsample)).train()
    levels = ours(make_images(*size, batch=3))
    for name, level in ours.out_spec.items():
        assert levels[name].shape[-2:] == (-(-size[0] // level.stride), -(-size[1] // level.stride))
    sum(x.square().sum() for x in levels.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_folded_norms_change_no_output(norm: Any) -> None:
    ours = shaken(non_local(num_blocks=5, norm=norm)).double()
    expected = ours(make_images().double())
    fold_norms(ours)
    assert not [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    for name, level in ours(make_images().double()).items():
        torch.testing.assert_close(level, expected[name], rtol=1e-9, atol=1e-9)


def test_exported_with_a_free_batch() -> None:
    ours = shaken(non_local(num_blocks=5))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(ours, (make_images(64, 90),), dynamic_shapes=(batch,)).module()
    for size in (1, 3):
        expected, actual = ours(make_images(64, 90, size)), program(make_images(64, 90, size))
        for name, level in expected.items():
            torch.testing.assert_close(actual[name], level, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ("c2", "c3")}, r"non-local blocks are in c4, which the levels \['c2', 'c3'\] do not reach"),
        ({"depth": 18, "num_blocks": 5}, "num_blocks 5 needs 3 blocks in c4, and depth 18 has fewer"),
        ({"depth": 18, "num_blocks": 10}, "num_blocks 10 needs 4 blocks in c3, and depth 18 has fewer"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        non_local(**options)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_blocks is one of \[1, 5, 10\], not 3"):
        non_local(num_blocks=3)
