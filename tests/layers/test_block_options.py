"""Blocks of ResNet: squeeze-excitation as timm has it, stochastic depth, activations, what they begin with."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import SEModule
from timm.models.resnet import BasicBlock as TheirBasicBlock
from timm.models.resnet import Bottleneck as TheirBottleneck
from timm.models.resnet import ResNet as TheirResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from boxwright.backbones.botnet import BoTNet
from boxwright.backbones.resnet import ResNet
from boxwright.layers.block_options import BlockForm, BlockOptions
from boxwright.layers.position_attention import PositionAttention
from boxwright.layers.resnet import BasicBlock, Bottleneck
from conformance import compare as compare_difference
from conformance import compare_gradients, note_inputs

EVERY = ("c2", "c3", "c4", "c5")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
SENETS: dict[Any, tuple[str, int]] = {50: ("seresnet50", 28_088_024), 152: ("seresnet152", 66_821_848)}
SENET_350 = (3, 48, 61, 4)
CLASSIFIER = 2048 * 1000 + 1000


def randomize(module: nn.Module) -> nn.Module:
    """Weights and statistics without any special value, in float64."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 0.9, generator=generator)
            for tensor in (norm.bias.data, norm.running_mean):
                assert tensor is not None
                tensor.uniform_(-0.2, 0.2, generator=generator)
        elif isinstance(norm, nn.Conv2d) and norm.bias is not None:
            nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
    return module.double()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Outputs of the last level, and the gradients of every parameter and of the image."""
    ours.load_state_dict(theirs.state_dict())
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    results = ours(inputs[0])["c5"], theirs(inputs[1])
    note_inputs(x)
    compare_difference("outputs", ((results[0] - results[1]).norm() / results[1].norm()).item(), 1e-12)
    weights = noise(*results[1].shape, seed=2)
    for result in results:
        (result * weights).sum().backward()
    gradients = [
        {name: p.grad for name, p in module.named_parameters()} | {"images": images.grad}
        for module, images in zip((ours, theirs), inputs, strict=True)
    ]
    compare_gradients(*gradients, limit=1e-8)


@pytest.mark.conforms("squeeze-excitation", "timm")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_squeeze_excitation_is_that_of_timm(activation: Any, training: bool) -> None:
    kind = ACTIVATIONS[activation]
    theirs = TheirResNet(
        TheirBottleneck, (1, 2, 2, 1), 0, global_pool="", act_layer=kind, block_args={"attn_layer": "se"}
    )
    for module in theirs.modules():
        # timm's layer takes a ReLU, whatever the network has.
        if type(module).__name__ == "SEModule":
            module.act = kind()
    options = BlockOptions(activation=activation, squeeze_excitation="all")
    ours = ResNet(depth=(1, 2, 2, 1), levels=EVERY, block=options).double()
    compare(ours.train(training), randomize(theirs).train(training), noise(2, 3, 37, 51))


@pytest.mark.conforms("squeeze-excitation", "timm")
def test_squeeze_excitation_of_basic_blocks_is_that_of_timm() -> None:
    # Without its rounding to multiples of 8, which the paper has not.
    attention = {"attn_layer": partial(SEModule, rd_divisor=1)}
    theirs = TheirResNet(TheirBasicBlock, (2, 2, 2, 2), 0, global_pool="", block_args=attention)
    ours = ResNet(depth=18, levels=EVERY, block=BlockOptions(squeeze_excitation="convolutions")).double()
    compare(ours.eval(), randomize(theirs).eval(), noise(1, 3, 37, 51))


@pytest.mark.slow
@pytest.mark.conforms("squeeze-excitation", "timm")
@pytest.mark.parametrize(("depth", "name"), [(200, "resnet200"), (50, "seresnet50")])
def test_whole_networks_are_those_of_timm(depth: Any, name: str) -> None:
    theirs = timm.create_model(name, num_classes=0, global_pool="")
    options = BlockOptions(squeeze_excitation="all" if name.startswith("se") else "none")
    compare(
        ResNet(depth=depth, levels=EVERY, block=options).double().eval(), randomize(theirs).eval(), noise(1, 3, 45, 64)
    )


@pytest.mark.parametrize("depth", [50, 152])
def test_parameters_of_senets_are_those_of_timm(depth: Any) -> None:
    name, count = SENETS[depth]
    with torch.device("meta"):
        ours, theirs = ResNet(depth=depth, block=BlockOptions(squeeze_excitation="all")), timm.create_model(name)
    assert (
        sum(p.numel() for p in ours.parameters()) + CLASSIFIER == count == sum(p.numel() for p in theirs.parameters())
    )
    shapes = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes


def test_parameters_of_depth_200_are_those_of_timm() -> None:
    with torch.device("meta"):
        ours, theirs = ResNet(depth=200), timm.create_model("resnet200")
    count = sum(p.numel() for p in ours.parameters()) + CLASSIFIER
    assert count == sum(p.numel() for p in theirs.parameters()) == 64_673_832


@pytest.mark.parametrize(("depth", "listed"), [(50, 28.0), (152, 66.6), (SENET_350, 115.2)])
def test_parameters_of_senets_are_those_listed(depth: Any, listed: float) -> None:
    """In millions, of products: no norms, no biases. Nobody lists the blocks of 350 layers; these have its numbers."""
    with torch.device("meta"):
        ours = ResNet(depth=depth, block=BlockOptions(squeeze_excitation="all"))
    products = sum(m.weight.numel() for m in ours.modules() if isinstance(m, nn.Conv2d)) + 2048 * 1000
    assert products / 1e6 == pytest.approx(listed, rel=3e-3)


@pytest.mark.parametrize(("depth", "size", "listed"), [(50, 224, 4.09), (152, 288, 19.04), (SENET_350, 320, 52.9)])
def test_multiply_adds_of_senets(depth: Any, size: int, listed: float) -> None:
    with torch.device("meta"):
        ours, images = ResNet(depth=depth, block=BlockOptions(squeeze_excitation="all")), torch.empty(1, 3, size, size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ours.eval()(images)
    assert counter.get_total_flops() / 2e9 + 2048e-6 == pytest.approx(listed, rel=0.01)


def make_bottleneck(**options: Any) -> Bottleneck:
    torch.manual_seed(0)
    block = Bottleneck(8, 4, 2, (1, 1), BlockForm(options=BlockOptions(**options)))
    randomize(block)
    return block


def test_a_bottleneck_in_the_order_of_its_steps() -> None:
    block = make_bottleneck(activation="silu", squeeze_excitation="all", shortcut_activation="all").eval()
    x = noise(2, 8, 5, 7)
    y = F.silu(block.bn1(block.conv1(x)))
    y = block.bn3(block.conv3(F.silu(block.bn2(block.conv2(y)))))
    assert block.se is not None
    pooled = y.mean((2, 3), keepdim=True)
    y = y * block.se.fc2(F.silu(block.se.fc1(pooled))).sigmoid()
    assert block.downsample is not None
    shortcut = F.silu(block.downsample[1](block.downsample[0](x)))
    torch.testing.assert_close(block(x), F.silu(y + shortcut), rtol=1e-12, atol=1e-12)
    feedback = noise(*y.shape)
    torch.testing.assert_close(block(x, feedback), F.silu(y + shortcut + feedback), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("squeezed", ["all", "convolutions"])
def test_squeeze_excitation_in_blocks_with_attention(squeezed: Any) -> None:
    options = BlockOptions(activation="silu", squeeze_excitation=squeezed, shortcut_activation="attention")
    torch.manual_seed(0)
    ours = BoTNet(depth=(1, 1, 1, 2), width=4, c5_stride=1, image_size=64, attention=(1, 0), block=options)
    randomize(ours.eval())
    images = noise(1, 3, 49, 64)
    levels, block = ours(images), ours.layer4[0]
    assert isinstance(block, Bottleneck)
    assert isinstance(block.conv2, PositionAttention)
    assert (block.se is not None) == (squeezed == "all")
    assert all(stage[-1].se is not None for stage in (ours.layer1, ours.layer2, ours.layer3, ours.layer4))
    y = F.silu(block.bn2(block.conv2(F.silu(block.bn1(block.conv1(levels["c4"]))))))
    y = block.bn3(block.conv3(y))
    if block.se is not None:
        y = y * block.se.fc2(F.silu(block.se.fc1(y.mean((2, 3), keepdim=True)))).sigmoid()
    assert block.downsample is not None
    y = F.silu(y + F.silu(block.downsample[1](block.downsample[0](levels["c4"]))))
    torch.testing.assert_close(ours.layer4[1](y), levels["c5"], rtol=1e-12, atol=1e-12)
    # ResNet's own shortcuts have no activation.
    assert len(ours.layer2[0].downsample) == 2
    assert len(block.downsample) == 3


def test_a_block_is_left_out_image_by_image() -> None:
    block = make_bottleneck(drop_path=0.0)
    block.drop_path = 0.25
    x = noise(1, 8, 3, 3).expand(4000, -1, -1, -1)
    for norm in (block.bn1, block.bn2, block.bn3):
        norm.eval()
    assert block.downsample is not None
    block.downsample.eval()
    shortcut = block.downsample(x[:1])
    block.eval()
    branch = block.bn3(block.conv3(block.bn2(block.conv2(block.bn1(block.conv1(x[:1])).relu())).relu()))
    torch.testing.assert_close(block(x[:1]), (shortcut + branch).relu())
    block.training = True
    out = block(x)
    left_out = (out == shortcut.relu()).flatten(1).all(1)
    # Four standard errors of a mean of 4,000.
    assert left_out.double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    torch.testing.assert_close(
        out[~left_out], (shortcut + branch / 0.75).relu().expand(int((~left_out).sum()), -1, -1, -1)
    )


def test_later_blocks_are_left_out_more_often() -> None:
    with torch.device("meta"):
        ours = ResNet(depth=(1, 2, 2, 2), block=BlockOptions(drop_path=0.3))
    paths = [block.drop_path for block in ours.modules() if isinstance(block, Bottleneck)]
    assert paths == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("depth", [18, (1, 1, 1, 1)])
def test_new_blocks_put_out_their_shortcuts(depth: Any, norm: Any) -> None:
    torch.manual_seed(0)
    ours = ResNet(depth=depth, width=4, norm=norm, block=BlockOptions(start_as_shortcut=True))
    blocks = [block for block in ours.modules() if isinstance(block, BasicBlock | Bottleneck)]
    assert blocks
    for block in blocks:
        channels = block.conv1.weight.shape[1]
        x = torch.randn(1, channels, 4, 4).relu()
        expected = x if block.downsample is None else block.downsample(x).relu()
        torch.testing.assert_close(block(x), expected)
    plain = ResNet(depth=depth, width=4, norm=norm)
    # The weights of convolutions stay drawn, so that a norm's scale, trained, brings the block to life.
    assert all((m.weight != 0).any() for m in plain.modules() if isinstance(m, nn.Conv2d))


def test_resnet_has_no_blocks_with_attention() -> None:
    with pytest.raises(ValueError, match="shortcut_activation attention is of BoTNet's blocks; ResNet has none"):
        ResNet(block=BlockOptions(shortcut_activation="attention"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_path": 1.0}, "drop_path is at least 0 and below 1, not 1.0"),
        ({"drop_path": -0.1}, "drop_path is at least 0 and below 1, not -0.1"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockOptions(**options)
