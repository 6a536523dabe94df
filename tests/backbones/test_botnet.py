"""BoTNet: the published sizes and costs, what is replaced, odd sizes, weights of ResNet and of other sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from shaken_backbone import make_images, shake_backbone
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boxwright.backbones.botnet import BoTNet
from boxwright.backbones.resnet import ResNet
from boxwright.layers.block_options import BlockOptions
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.layers.folding import fold_norms
from boxwright.layers.position_attention import PositionAttention, resized_table
from boxwright.structures import Level

SMALL: dict[str, Any] = {"width": 4, "image_size": 64}
CLASSIFIER = 2048 * 1000 + 1000


def botnet(**options: Any) -> BoTNet:
    torch.manual_seed(0)
    return BoTNet(**SMALL | options)


@torch.no_grad()
def shaken(backbone: BoTNet) -> BoTNet:
    """Away from zeros and ones, in evaluation."""
    shake_backbone(backbone)
    for name, parameter in backbone.named_parameters():
        if name.endswith("project.weight"):
            parameter.mul_(3)
    return backbone.eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": 224}, 20_852_008),
        ({"image_size": 256}, 20_854_056),
        ({"image_size": 1024}, 20_903_208),
        ({"image_size": 224, "c5_stride": 1}, 20_859_176),
        ({"image_size": 1024, "c5_stride": 1}, 20_935_976),
        ({"image_size": 1024, "depth": 101}, 39_895_336),
        ({"image_size": 1024, "depth": 152}, 55_538_984),
        ({"attention": (0, 0, 0)}, 25_557_032),
        ({"attention": (0, 0, 0), "depth": 101}, 44_549_160),
    ],
)
def test_published_parameter_counts(options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(BoTNet(**options)) + CLASSIFIER == expected


def gmac(size: int, **options: Any) -> float:
    """With the classifier's products, as published."""
    with torch.device("meta"):
        backbone, images = BoTNet(image_size=size, **options).eval(), torch.empty(1, 3, size, size)
    for module in backbone.modules():
        if hasattr(module, "count_as_published"):
            module.count_as_published = True
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        backbone(images)
    return (counter.get_total_flops() / 2 + 2048 * 1000) / 1e9


@pytest.mark.parametrize(
    ("options", "at_224", "at_1024"),
    [
        ({"attention": (0, 0, 0)}, 4.089, 85.415),
        ({}, 4.025, 102.991),
        ({"c5_stride": 1}, 5.418, 163.517),
        ({"attention": (0, 0, 1)}, 4.015, 84.944),
        ({"attention": (0, 1, 1)}, 3.941, 84.473),
        ({"attention": (1, 0, 0)}, 4.172, 103.933),
        ({"attention": (1, 1, 0)}, 4.099, 103.462),
    ],
)
def test_published_multiply_adds(options: dict[str, Any], at_224: float, at_1024: float) -> None:
    assert gmac(224, **options) == pytest.approx(at_224, abs=6e-4)
    assert gmac(1024, **options) == pytest.approx(at_1024, abs=6e-4)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_names_are_those_of_torchvision_but_for_what_is_replaced(depth: Any) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")
    with torch.device("meta"):
        ours = BoTNet(depth=depth, levels=("c2", "c3", "c4", "c5")).state_dict()
        peer = {name: tensor for name, tensor in theirs().state_dict().items() if not name.startswith("fc.")}
    replaced = {f"layer4.{i}.conv2.weight" for i in range(3)}
    assert set(peer) - set(ours) == replaced
    tables = ("project.weight", "relative.height", "relative.width")
    assert set(ours) - set(peer) == {f"layer4.{i}.conv2.{name}" for i in range(3) for name in tables}
    assert all(ours[name].shape == tensor.shape for name, tensor in peer.items() if name not in replaced)


@pytest.mark.parametrize("attention", [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1)])
@pytest.mark.parametrize("c5_stride", [1, 2])
def test_the_chosen_blocks_are_replaced_and_have_tables_of_their_maps(attention: Any, c5_stride: Any) -> None:
    ours = botnet(attention=attention, c5_stride=c5_stride, image_size=112)
    sizes = [7, 7, 7] if c5_stride == 1 else [7, 4, 4]
    for block, replaced, size, stride in zip(ours.layer4, attention, sizes, [c5_stride, 1, 1], strict=True):
        assert isinstance(block.conv2, PositionAttention) == bool(replaced)
        if replaced:
            assert block.conv2.relative.height.shape == (2 * size - 1, 8)
            assert block.conv2.stride == stride
        else:
            assert block.conv2.stride == (stride, stride)
    assert ours.out_spec["c5"] == Level(128, 16 * c5_stride)


def test_without_attention_it_is_resnet() -> None:
    ours, resnet = botnet(attention=(0, 0, 0)).eval(), ResNet(width=4).eval()
    resnet.load_state_dict(ours.state_dict())
    for name, level in resnet(make_images()).items():
        assert torch.equal(ours(make_images())[name], level)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_new_one_puts_out_its_shortcuts_and_is_trained_away_from_them(norm: Any) -> None:
    ours = botnet(norm=norm, width=8).eval()
    levels = ours(make_images())
    torch.testing.assert_close(levels["c5"], ours.layer4[0].downsample(levels["c4"]).relu())
    ours.train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (
            ours(make_images())["c5"] * torch.randn(1, 256, 2, 2, generator=torch.Generator().manual_seed(3))
        ).sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in ours.layer4.parameters() if p.requires_grad)


def test_the_first_block_follows_the_papers_order() -> None:
    ours = shaken(botnet()).double()
    block, x = ours.layer4[0], make_images().double()
    c4 = ours(x)["c4"]
    y = block.bn1(block.conv1(c4)).relu()
    attended = PositionAttention.forward(block.conv2, y)
    assert attended.shape[-2:] == (2, 2)
    y = block.bn3(block.conv3(block.bn2(attended).relu()))
    expected = (y + block.downsample[1](block.downsample[0](c4))).relu()
    torch.testing.assert_close(block(c4), expected, rtol=1e-12, atol=1e-12)


def test_the_authors_relu_on_the_shortcut() -> None:
    plain, ours = shaken(botnet()), shaken(botnet(block=BlockOptions(shortcut_activation="attention")))
    assert list(plain.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(plain.state_dict())
    c4 = ours(make_images())["c4"]
    block, theirs = ours.layer4[0], plain.layer4[0]
    y = theirs.bn1(theirs.conv1(c4)).relu()
    y = theirs.bn3(theirs.conv3(theirs.bn2(theirs.conv2(y)).relu()))
    shortcut = theirs.downsample(c4)
    assert (shortcut < 0).any()
    torch.testing.assert_close(block(c4), (y + shortcut.relu()).relu())
    torch.testing.assert_close(theirs(c4), (y + shortcut).relu())


@pytest.mark.parametrize("size", [(64, 64), (33, 31), (100, 75), (65, 97), (16, 16), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"c5_stride": 1}, {"attention": (0, 1, 1)}, {"positions": "absolute"}])
def test_maps_of_any_size_are_trained_on(size: tuple[int, int], options: dict[str, Any]) -> None:
    ours = shaken(botnet(**options)).train()
    levels = ours(make_images(*size, batch=3))
    for name, level in ours.out_spec.items():
        assert levels[name].shape[-2:] == (-(-size[0] // level.stride), -(-size[1] // level.stride))
    sum(x.square().sum() for x in levels.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_weights_trained_at_another_size_load(positions: Any) -> None:
    trained, ours = shaken(botnet(positions=positions)), botnet(positions=positions, image_size=256).eval()
    ours.load_state_dict(trained.state_dict())
    kind = f"layer4.0.conv2.{positions}.height"
    assert len(trained.state_dict()[kind]) < len(ours.state_dict()[kind])
    expected = resized_table(trained.state_dict()[kind], len(ours.state_dict()[kind]), relative=positions == "relative")
    assert torch.equal(ours.state_dict()[kind], expected)
    # At the size that its tables are for, it does what interpolating in each pass does.
    for name, level in trained(make_images(256, 256)).items():
        torch.testing.assert_close(ours(make_images(256, 256))[name], level, rtol=1e-5, atol=1e-5)


def test_frozen_stages_include_attention() -> None:
    for frozen_stages in (4, 5):
        ours = botnet(frozen_stages=frozen_stages)
        assert all(p.requires_grad == (frozen_stages == 4) for p in ours.layer4.parameters() if p.ndim > 1)
        assert not any(p.requires_grad for p in ours.layer3.parameters())


@pytest.mark.parametrize(
    "options", [{}, {"block": BlockOptions(shortcut_activation="attention")}, {"c5_stride": 1}, {"norm": "frozen"}]
)
def test_folded_norms_change_no_output(options: dict[str, Any]) -> None:
    ours = shaken(botnet(**options)).double()
    x = make_images(64, 96).double()
    expected = ours(x)
    fold_norms(ours)
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert norms == [block.bn2 for block in ours.layer4]
    for name, level in ours(x).items():
        torch.testing.assert_close(level, expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"positions": "absolute", "c5_stride": 1}])
def test_exported_with_a_free_batch(options: dict[str, Any]) -> None:
    ours = shaken(botnet(**options))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(ours, (make_images(64, 90),), dynamic_shapes=(batch,)).module()
    for size in (1, 3):
        expected, actual = ours(make_images(64, 90, size)), program(make_images(64, 90, size))
        for name, level in expected.items():
            torch.testing.assert_close(actual[name], level, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": (0, 2, 1)}, r"attention is a 0 or a 1 for each of c5's 3 blocks, not \(0, 2, 1\)"),
        ({"levels": ("c3", "c4")}, r"attention is in c5, which is not among the levels \['c3', 'c4'\]"),
        ({"depth": (3, 4, 6, 2), "attention": (1, 1, 1)}, r"attention is a 0 or a 1 for each of c5's 2 blocks"),
        (
            {"block": BlockOptions(shortcut_activation="attention"), "attention": (0, 1, 1)},
            r"shortcut_activation attention is of c5's first block, which has no attention with \[0, 1, 1\]",
        ),
        ({"image_size": 0}, "image_size is at least 1, not 0"),
        ({"num_heads": 3}, "num_heads divides the 32 channels that attention has, and 3 does not"),
        ({"positions": "none", "content": False}, "attention needs content, positions or both"),
        ({"width": 0}, "width is at least 1, not 0"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        botnet(**options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18}, r"depth 18 has basic blocks"),
        ({"c5_stride": 4}, r"c5_stride is one of \[1, 2\], not 4"),
        ({"positions": "sine"}, "positions is one of"),
    ],
)
def test_unknown_choices_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        botnet(**options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (34, "depth 34 has basic blocks, in which there is nothing that attention could replace"),
        (77, r"depth is one of \[18, 34, 50, 101, 152, 200\], not 77"),
        ((3, 4, 6), r"depth lists how many blocks, at least 1, each of \['c2', .*\] has, not \[3, 4, 6\]"),
        ((3, 4, 6, 0), r"depth lists how many blocks, at least 1, .* has, not \[3, 4, 6, 0\]"),
    ],
)
def test_depths_that_there_are_not(depth: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        botnet(depth=depth)


T = {"c5_stride": 1, "block": BlockOptions(activation="silu", squeeze_excitation="all")}
SIZES = {
    "t3": ((3, 4, 6, 6), 224),
    "t4": ((3, 4, 23, 6), 224),
    "t5": ((3, 4, 23, 12), 256),
    "t6": ((3, 4, 6, 12), 320),
    "t7": ((3, 4, 23, 12), 384),
}


def count_products(backbone: nn.Module) -> int:
    """Weights of convolutions and linear layers: no norms, no biases, no position tables."""
    return sum(m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Conv2d)) + 2048 * 1000


@pytest.mark.parametrize(
    ("name", "squeezed", "published"),
    # In millions: of the paper with squeeze-excitation in all blocks; of bottleneck-transformer-flax 511d699's
    # table, of the authors' script as mended there, with it in blocks of convolutions only.
    [("t3", "all", 33.5), ("t4", "all", 54.7), ("t5", "all", 75.1), ("t6", "all", 53.9), ("t7", "all", 75.1)]
    + [
        (name, "convolutions", count)
        for name, count in [("t3", 30.4), ("t4", 51.5), ("t5", 68.8), ("t6", 47.7), ("t7", 68.8)]
    ],
)
def test_parameters_of_botnet_t(name: str, squeezed: Any, published: float) -> None:
    depth, size = SIZES[name]
    block = BlockOptions(activation="silu", squeeze_excitation=squeezed)
    with torch.device("meta"):
        ours = BoTNet(depth=depth, image_size=size, c5_stride=1, block=block)
    assert count_products(ours) / 1e6 == pytest.approx(published, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "everything"),
    [("t3", 33_659_480), ("t4", 54_898_328), ("t5", 75_449_240), ("t6", 54_234_968), ("t7", 75_498_392)],
)
def test_all_parameters_of_botnet_t(name: str, everything: int) -> None:
    depth, size = SIZES[name]
    with torch.device("meta"):
        assert count(BoTNet(depth=depth, image_size=size, **T)) + CLASSIFIER == everything


@pytest.mark.parametrize(
    ("name", "size", "published"),
    [("t3", 224, 7.3), ("t4", 224, 10.9), ("t5", 256, 19.3), ("t6", 320, 23.3), ("t7", 384, 45.8)],
)
def test_multiply_adds_of_botnet_t(name: str, size: int, published: float) -> None:
    assert gmac(size, depth=SIZES[name][0], **T) == pytest.approx(published, rel=0.01)


def test_parameters_of_depth_200() -> None:
    with torch.device("meta"):
        assert count(BoTNet(depth=200, image_size=1024)) + CLASSIFIER == 60_020_008
