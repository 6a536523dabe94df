"""Convolution and norm: what is folded, what is frozen."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from boxwright.layers.conv import Activation, ConvNorm, FrozenBatchNorm2d, Norm, fold_tensors


def with_statistics(block: nn.Module, seed: int = 0) -> nn.Module:
    """Norms as after training: no statistic and no affine at its start."""
    generator = torch.Generator().manual_seed(seed)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(generator=generator)
                norm.running_mean.normal_(generator=generator)
                norm.running_var.uniform_(0.2, 3.0, generator=generator)
    return block


@pytest.mark.parametrize(("kernel_size", "stride", "norm"), list(product([1, 3], [1, 2], ["batch", "frozen"])))
def test_folding_the_norm_changes_nothing(kernel_size: int, stride: int, norm: Norm) -> None:
    torch.manual_seed(0)
    block = with_statistics(ConvNorm(5, 7, kernel_size, stride, activation="silu", norm=norm)).eval()
    x = torch.randn(2, 5, 9, 6)
    before = block(x)
    block.fold_norms()
    assert isinstance(block.norm, nn.Identity)
    assert block.conv.bias is not None
    assert (block(x) - before).abs().max() < 1e-5


@pytest.mark.parametrize(("bias", "norm"), list(product([False, True], ["batch", "frozen"])))
def test_folding_is_exact_with_and_without_bias(bias: bool, norm: Norm) -> None:
    torch.manual_seed(0)
    block = with_statistics(ConvNorm(5, 7, 3, norm=norm, bias=bias, eps=0.1)).double().eval()
    x = torch.randn(2, 5, 9, 6, dtype=torch.float64)
    before = block(x)
    block.fold_norms()
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-12)


def test_a_depthwise_block_convolves_each_channel_by_itself() -> None:
    torch.manual_seed(0)
    block = with_statistics(ConvNorm(6, 6, 3, groups=6, activation="relu")).eval()
    assert block.conv.weight.shape == (6, 1, 3, 3)
    x = torch.randn(2, 6, 5, 7)
    before = block(x)
    changed = x.clone()
    changed[:, 4] += 1
    assert ((block(changed) - before).abs().amax((0, 2, 3)) > 0).tolist() == [False] * 4 + [True, False]
    block.fold_norms()
    assert block.conv.groups == 6
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-5)


def test_options_of_the_norm_reach_it() -> None:
    block = ConvNorm(2, 3, 1, eps=0.3, momentum=0.2)
    assert (block.norm.eps, block.norm.momentum) == (0.3, 0.2)
    assert ConvNorm(2, 3, 1, norm="frozen", eps=0.3).norm.eps == 0.3
    assert block.conv.bias is None
    assert ConvNorm(2, 3, 1, bias=True).conv.bias is not None


def test_a_depthwise_convolution_sees_one_channel_each() -> None:
    torch.manual_seed(0)
    block = with_statistics(ConvNorm(4, 4, 3, groups=4)).eval()
    x = torch.randn(1, 4, 5, 6)
    before = block(x)
    changed = x.clone()
    changed[:, 0] += 1
    assert [bool((a != b).any()) for a, b in zip(block(changed)[0], before[0], strict=True)] == [True, *[False] * 3]
    block.fold_norms()
    assert block.conv.groups == 4
    assert (block(x) - before).abs().max() < 1e-5


def test_folding_twice_is_folding_once() -> None:
    block = with_statistics(ConvNorm(3, 3, 3)).eval()
    block.fold_norms()
    weight = block.conv.weight.clone()
    block.fold_norms()
    torch.testing.assert_close(block.conv.weight, weight, rtol=0, atol=0)


def test_the_fold_uses_the_norms_own_epsilon() -> None:
    block = with_statistics(ConvNorm(2, 3, 1)).eval()
    assert isinstance(block.norm, nn.BatchNorm2d)
    block.norm.eps = 0.7
    weight, bias = fold_tensors(block.conv, block.norm)
    scale = block.norm.weight / (block.norm.running_var + 0.7).sqrt()
    torch.testing.assert_close(weight, block.conv.weight * scale.view(-1, 1, 1, 1))
    torch.testing.assert_close(bias, block.norm.bias - block.norm.running_mean * scale)


@pytest.mark.parametrize("variance", [0.0, 5.6e-45, 1e-30])
def test_without_epsilon_no_variance_makes_numbers_that_are_none(variance: float) -> None:
    """Real files have channels that are always 0: their weights and variances are tiny, or 0."""
    block = with_statistics(ConvNorm(2, 3, 1, norm="frozen", eps=0.0)).eval()
    assert isinstance(block.norm, FrozenBatchNorm2d)
    with torch.no_grad():
        block.norm.running_var[1], block.norm.running_mean[1], block.conv.weight[1] = variance, 0.0, 0.0
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    theirs = torchvision.ops.FrozenBatchNorm2d(3, eps=0.0)
    theirs.load_state_dict(block.norm.state_dict())
    expected, before = theirs(block.conv(x)), block(x)
    if not variance:
        assert expected[:, 1].isnan().all()
        expected[:, 1] = block.norm.bias[1]
    torch.testing.assert_close(before, expected, rtol=1e-5, atol=1e-5)
    block.fold_norms()
    torch.testing.assert_close(block(x), before, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_norm_with_statistics_cannot_be_folded() -> None:
    block = ConvNorm(2, 2, 1)
    block.norm = nn.GroupNorm(1, 2)
    with pytest.raises(ValueError, match="only a batch norm with statistics can be folded, not GroupNorm"):
        block.fold_norms()


def test_frozen_norm_equals_torchvisions() -> None:
    theirs = torchvision.ops.FrozenBatchNorm2d(6, eps=1e-5)
    ours = with_statistics(FrozenBatchNorm2d(6))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(norm(x).square().sum(), x)[0] for norm in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_frozen_norm_neither_learns_nor_counts() -> None:
    norm = with_statistics(FrozenBatchNorm2d(4)).train()
    before = {name: buffer.clone() for name, buffer in norm.state_dict().items()}
    norm(torch.randn(2, 4, 3, 3))
    assert list(norm.parameters()) == []
    assert list(before) == ["weight", "bias", "running_mean", "running_var"]
    for name, buffer in norm.state_dict().items():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)


def test_frozen_norms_load_a_checkpoint_of_batch_norms() -> None:
    trained = with_statistics(ConvNorm(3, 4, 1)).eval()
    frozen = ConvNorm(3, 4, 1, norm="frozen")
    frozen.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(frozen(x), trained(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", torch.relu), ("silu", lambda x: x * x.sigmoid()), ("gelu", nn.functional.gelu), (None, lambda x: x)],
)
def test_activation_stands_after_the_norm(activation: Activation | None, function: nn.Module) -> None:
    block = with_statistics(ConvNorm(3, 4, 3, activation=activation)).eval()
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(block(x), function(block.norm(block.conv(x))))


@pytest.mark.parametrize(("kernel_size", "stride", "expected"), [(1, 1, 7), (3, 1, 7), (3, 2, 4), (1, 2, 4)])
def test_stride_one_keeps_the_size_and_two_halves_it_upwards(kernel_size: int, stride: int, expected: int) -> None:
    assert ConvNorm(1, 1, kernel_size, stride)(torch.zeros(2, 1, 7, 7)).shape[-2:] == (expected, expected)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_norm_takes_gradients_in_memory_of_their_own(
    activation: Activation | None, memory_format: torch.memory_format
) -> None:
    """Those of maps that are concatenated are parts of a larger one; the numbers are the same."""
    torch.manual_seed(0)
    block = ConvNorm(5, 7, 3, activation=activation).to(memory_format=memory_format)
    x, beside = torch.randn(2, 5, 6, 4).to(memory_format=memory_format), torch.randn(2, 3, 6, 4)
    weights = torch.randn(2, 10, 6, 4).to(memory_format=memory_format)
    came = []

    def note(module: nn.Module, inputs: Any, outputs: Any) -> None:
        del module, inputs
        came.append(outputs[0])

    block.norm.register_full_backward_hook(note)
    (torch.cat((block(x), beside.to(memory_format=memory_format)), 1) * weights).sum().backward()
    (grad,) = came
    assert grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)
    if activation is None:
        assert torch.equal(grad, weights[:, :7])
