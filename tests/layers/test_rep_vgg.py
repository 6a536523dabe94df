"""RepVGG blocks and the layer that is built of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.folding import fold_norms
from boxwright.layers.rep_vgg import CSPRepLayer, RepELAN, RepVGGBlock


def trained(module: nn.Module) -> nn.Module:
    """Norm statistics of real activations, affine away from its start, evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    module.train()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.5
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(generator=generator)
    channels = next(conv.in_channels for conv in module.modules() if isinstance(conv, nn.Conv2d))
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, channels, 12, 10, generator=generator))
    return module.eval()


def test_fusing_a_block_keeps_what_it_computes() -> None:
    torch.manual_seed(0)
    block = trained(RepVGGBlock(16))
    assert isinstance(block, RepVGGBlock)
    x = torch.randn(2, 16, 11, 8)
    before = block(x)
    block.fold_norms()
    assert (block(x) - before).abs().max() < 1e-4
    assert [type(child) for child in block.children()] == [nn.Conv2d, nn.SiLU]
    assert sum(p.numel() for p in block.parameters()) == 16 * 16 * 9 + 16


def test_fusing_twice_is_fusing_once() -> None:
    block = trained(RepVGGBlock(4))
    assert isinstance(block, RepVGGBlock)
    block.fold_norms()
    weight = block.conv3x3.weight
    block.fold_norms()
    assert block.conv3x3.weight is weight


def test_the_block_is_the_sum_of_two_branches_without_identity() -> None:
    torch.manual_seed(1)
    block = trained(RepVGGBlock(3, activation="relu"))
    x = torch.randn(1, 3, 5, 5)
    wide, point = block.conv3x3, block.conv1x1
    expected = F.relu(wide.norm(F.conv2d(x, wide.conv.weight, padding=1)) + point.norm(F.conv2d(x, point.conv.weight)))
    torch.testing.assert_close(block(x), expected)


def test_csp_layer_adds_its_branches() -> None:
    torch.manual_seed(2)
    layer = trained(CSPRepLayer(12, 8, num_blocks=2, expansion=0.5))
    assert isinstance(layer, CSPRepLayer)
    x = torch.randn(2, 12, 6, 7)
    through = layer.conv1(x)
    for block in layer.blocks:
        through = block(through)
    assert isinstance(layer.expand, ConvNorm)
    torch.testing.assert_close(layer(x), layer.expand(through + layer.conv2(x)))
    assert layer(x).shape == (2, 8, 6, 7)


def test_csp_layer_expands_only_where_the_widths_differ() -> None:
    full = CSPRepLayer(512, 256)
    assert isinstance(full.expand, nn.Identity)
    # Two 1 x 1 branches with norms, three blocks of 3 x 3 and 1 x 1 with norms: half of "fpn" in RT-DETR R50.
    assert sum(p.numel() for p in full.parameters()) == 2 * (512 * 256 + 512) + 3 * (256 * 256 * 10 + 2 * 512)
    assert 2 * sum(p.numel() for p in full.parameters()) == 4_464_640


def test_everything_below_a_module_is_fused() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(ConvNorm(3, 8, 3, 2, activation="relu"), trained(CSPRepLayer(8, 8, num_blocks=2)))
    module = trained(module)
    x = torch.randn(2, 3, 16, 16)
    before = module(x)
    fold_norms(module)
    assert not any(isinstance(child, nn.BatchNorm2d) for child in module.modules())
    assert (module(x) - before).abs().max() < 1e-4


def test_joint_branches_are_halves_of_one_convolution() -> None:
    torch.manual_seed(0)
    joint = trained(CSPRepLayer(8, 6, num_blocks=1, joint=True))
    apart = CSPRepLayer(8, 6, num_blocks=1).eval()
    assert isinstance(joint, CSPRepLayer)
    state = {name: tensor for name, tensor in joint.state_dict().items() if not name.startswith("conv1.")}
    for name, tensor in joint.conv1.state_dict().items():
        for branch, half in zip(("conv2", "conv1"), tensor.chunk(2) if tensor.ndim else (tensor, tensor), strict=True):
            state[f"{branch}.{name}"] = half
    apart.load_state_dict(state)
    x = torch.randn(2, 8, 5, 4)
    torch.testing.assert_close(joint(x), apart(x))


def test_stages_end_with_a_convolution_if_they_are_to_be_smooth() -> None:
    widths = {"split_channels": 8, "stage_channels": 4, "num_blocks": 1}
    smooth, plain = RepELAN(8, 8, **widths), RepELAN(8, 8, **widths, smooth=False)
    assert [len(stage) for stage in smooth.stages] == [2, 2]  # type: ignore[arg-type]
    assert [len(stage) for stage in plain.stages] == [1, 1]  # type: ignore[arg-type]
    assert plain(torch.randn(1, 8, 3, 5)).shape == (1, 8, 3, 5)
