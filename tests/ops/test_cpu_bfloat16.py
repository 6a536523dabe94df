"""Operations of bfloat16 on CPUs: maps one cell wide, and gradients of depthwise convolutions and of attention."""

from __future__ import annotations

import shutil
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.compose.detectors import build
from boxwright.ops.cpu_bfloat16 import cpu_operations
from boxwright.structures import Targets
from float32_operations import listen


def fill_free_memory(*like: Tensor) -> None:
    """Leave large numbers in memory that the next results of these sizes may be placed in."""
    for one in like:
        blocks = [torch.full((one.numel(),), 1e4) for _ in range(2)] + [torch.full((one.numel(),), 1e4).bfloat16()]
        del blocks


def convolve(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, ...]:
    """Return the output and the gradients of the input and the weight."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=layer.weight.dtype == torch.float32), cpu_operations(images):
        out = layer(images)
    out.float().mul(0.5).sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is not None
    return out.detach(), images.grad, layer.weight.grad.clone()


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (2, 2, 0), (3, 3, 0), (3, (1, 2), 1), (5, 2, 2), ((1, 3), (1, 2), (0, 1))],
)
@pytest.mark.parametrize(("height", "width"), [(2, 1), (17, 2), (6, 3), (1, 1), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_and_outputs(
    kernel: int, stride: int, padding: int, height: int, width: int, dtype: torch.dtype
) -> None:
    """With and without autocast, all agree with double precision, whatever lay in memory before."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, kernel, stride, padding).to(dtype)
    pad = layer.padding
    assert not isinstance(pad, str)
    sides = (max(height, layer.kernel_size[0] - 2 * pad[0]), max(width, layer.kernel_size[1] - 2 * pad[1]))
    images = torch.randn(4, 64, *sides).to(dtype)
    expected = convolve(deepcopy(layer).double(), images.double())
    fill_free_memory(*expected)
    for result, value in zip(convolve(layer, images), expected, strict=True):
        assert torch.isfinite(result).all()
        assert (result.double() - value).abs().max() <= 0.03 * value.abs().max()


def test_outputs_that_are_wider_are_left_alone() -> None:
    """Only where an output is one cell wide is anything computed otherwise."""
    layer, images = nn.Conv2d(8, 8, 3, 2, 1), torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(images)
        with cpu_operations(images):
            assert torch.equal(layer(images), plain)


@pytest.mark.parametrize(
    ("options", "widths", "wider"),
    [
        ({"stride": 2, "padding": 1}, (1, 2), 3),
        ({"stride": 3}, (3, 4, 5), 6),
        ({"stride": 2, "dilation": 2}, (5, 6), 7),
        ({"stride": (1, 2), "padding": (0, 1)}, (1, 2), 3),
        ({"stride": (2, 1), "padding": 1}, (), 1),
        ({"stride": 1, "padding": 1}, (), 1),
    ],
)
def test_maps_one_cell_wide_are_computed_in_float32(
    options: dict[str, Any], widths: tuple[int, ...], wider: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every machine: those without AMX compute them right in any case, and would not notice."""
    calls = listen(monkeypatch)
    layer = nn.Conv2d(4, 4, 3, **options)
    for width in (*widths, wider):
        images = torch.randn(2, 4, 9, width)
        with torch.autocast("cpu", torch.bfloat16), cpu_operations(images):
            assert (layer(images).shape[-1] == 1) == (width in widths or not widths)
    assert calls == [(2, 4, 9, width) for width in widths]


@pytest.mark.parametrize(
    ("kernel", "stride", "is_changed"),
    [(3, 1, False), (5, 1, True), (3, 2, True), ((1, 5), 1, True), (3, (1, 2), True)],
)
def test_depthwise_convolutions_are_trained_in_float32_where_bfloat16_is_slow(
    kernel: int, stride: int, is_changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are nearer to those of double precision than bfloat16's own; without gradients nothing changes."""
    calls = listen(monkeypatch)
    torch.manual_seed(0)
    layer, images = nn.Conv2d(16, 16, kernel, stride, 2, groups=16), torch.randn(2, 16, 12, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), cpu_operations(images):
        assert layer(images).dtype == torch.bfloat16
    assert calls == []
    expected = convolve(deepcopy(layer).double(), images.double())
    for result, value in zip(convolve(layer, images), expected, strict=True):
        assert (result.double() - value).abs().max() <= 0.01 * value.abs().max()
    assert calls == [(2, 16, 12, 12)] * is_changed


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_trained_in_float32(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are as near to those of double precision as rounding inputs to bfloat16 leaves them."""
    calls = listen(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, 4, 20, 8, generator=generator).bfloat16().float().requires_grad_() for _ in range(3)]
    blocked = torch.zeros(20, 20).masked_fill_(torch.rand(20, 20, generator=generator) < 0.5, float("-inf"))
    blocked[:, 0] = 0
    mask = blocked if masked else None
    weights = torch.randn(2, 4, 20, 8, generator=generator).bfloat16()

    def attend(*tensors: Tensor, precise: bool = False) -> tuple[Tensor, ...]:
        used = mask.double() if precise and mask is not None else mask
        out = F.scaled_dot_product_attention(*tensors, attn_mask=used)
        return (out, *torch.autograd.grad(out, tensors, weights.to(out.dtype)))

    expected = attend(*(x.detach().double().requires_grad_() for x in leaves), precise=True)
    with torch.autocast("cpu", torch.bfloat16), cpu_operations(leaves[0]):
        results = attend(*leaves)
        with torch.no_grad():
            assert F.scaled_dot_product_attention(*leaves, attn_mask=mask).dtype == torch.bfloat16
    assert calls == [(2, 4, 20, 8)]
    assert results[0].dtype == torch.bfloat16
    for result, value in zip(results, expected, strict=True):
        assert (result.double() - value).abs().max() <= 0.004 * value.abs().max()


def test_attention_with_dropout_or_in_double_precision_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = listen(monkeypatch)
    tokens = torch.rand(2, 4, 6, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), cpu_operations(tokens):
        assert F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.1).dtype == torch.bfloat16
        double = tokens.double()
        assert F.scaled_dot_product_attention(double, double, double).dtype == torch.float64
    assert calls == []


def test_detectors_of_tiny_images() -> None:
    """The coarsest levels of a RetinaNet at 64 pixels are one cell wide; its gradients are near those of float32."""
    torch.manual_seed(0)
    detector = build("retinanet_r18_fpn", num_classes=3).train()
    images = torch.rand(4, 3, 64, 64)
    targets = [Targets(torch.tensor([1]), torch.tensor([[10.0, 8.0, 50.0, 40.0]]), (64, 64)) for _ in images]
    gradients = []
    for enabled in (False, True):
        detector.zero_grad()
        fill_free_memory(*detector.parameters())
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = detector(images, None, targets)
        torch.stack(list(detector.loss(output, targets).values())).sum().backward()
        parameters = detector.necks.named_parameters()
        gradients.append({name: one.grad.clone() for name, one in parameters if one.grad is not None})
    assert gradients[0]
    for name, value in gradients[0].items():
        assert (gradients[1][name] - value).norm() <= 0.6 * value.norm() + 1e-6, name


@pytest.mark.slow
def test_compiled_convolutions_are_those_in_float32_too() -> None:
    """A module that is compiled by itself, as in training, sees the context that it is called in."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    torch.manual_seed(0)
    conv, images = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False), torch.rand(2, 8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = conv(images)
        with cpu_operations(images):
            expected = conv(images)
            compiled = torch.compile(conv.forward, dynamic=False)(images)
    assert not torch.equal(expected, plain)
    assert torch.equal(compiled, expected)
