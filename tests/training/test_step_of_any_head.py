"""One optimizer step of heads that count matches, on wide inputs with padding whose sides no stride divides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from flat_options import train_options
from torch import nn

from boxwright.backbones.resnet_vd import ResNetVD
from boxwright.detector import Detector
from boxwright.heads.efficientdet import EfficientDet
from boxwright.heads.fcos import FCOS
from boxwright.heads.retinanet import RetinaNet
from boxwright.necks.fpn import FPN
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import StepResult, train_step
from boxwright_runtime.input_format import InputFormat

CPU = torch.device("cpu")
HEIGHT, WIDTH = 53, 109
HEADS: dict[str, type[nn.Module]] = {"fcos": FCOS, "efficientdet": EfficientDet, "retinanet": RetinaNet}


def make(head: str) -> Detector:
    """A small detector whose batch norms are constant: a batch's statistics depend on its split."""
    torch.manual_seed(0)
    backbone = ResNetVD(depth=18, width=8)
    neck = FPN(backbone.out_spec, out_channels=8)
    categories = [Category(i + 1, f"class {i}") for i in range(4)]
    part = HEADS[head](neck.out_spec, 4, num_convs=1)
    detector = Detector(backbone, [neck], part, categories=categories, input_format=InputFormat(image_size=64)).double()
    for module in detector.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            # Padding is 0: at a bias of 0 it would stand on the edge of every ReLU.
            nn.init.uniform_(module.eval().bias, 0.1, 0.3)
    return detector.to(memory_format=torch.channels_last)


def make_batch(make_targets: Callable[..., list[Targets]]) -> Batch:
    """Four images, of which one fills the input and the others end on the right or below; one has no object."""
    sizes = [(HEIGHT, WIDTH), (HEIGHT, 71), (37, WIDTH), (41, 83)]
    images = torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask, targets = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.bool), []
    for i, (count, size) in enumerate(zip((5, 1, 0, 3), sizes, strict=True)):
        mask[i, size[0] :], mask[i, :, size[1] :] = True, True
        (target,) = make_targets([count], size=size, seed=i)
        targets.append(target._replace(masks=None, boxes=target.boxes.double()))
    images[mask[:, None].expand_as(images)] = 0
    own_sizes = [ImageSize(2 * height, 3 * width, height, width) for height, width in sizes]
    return Batch(images, mask, targets, own_sizes, [1, 2, 3, 4])


def step(detector: Detector, batch: Batch, **options: Any) -> StepResult:
    chosen = train_options(batch_size=4, lr=1e-15, optimizer__weight_decay=0.0, optimizer__max_grad_norm=0.0, **options)
    return train_step(detector, detector, make_optimizer(detector, chosen), batch, chosen, CPU)


def gradients(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    scale = max(float(gradient.abs().max()) for gradient in first.values())
    assert scale > 1e-6
    for name, gradient in first.items():
        assert float((second[name] - gradient).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("head", HEADS)
def test_parts_of_a_step_have_the_gradient_of_the_whole(head: str, make_targets: Callable[..., list[Targets]]) -> None:
    """Matches are counted on the maps that there are, of all parts together."""
    batch = make_batch(make_targets)
    whole, parts = make(head), make(head)
    first, second = step(whole, batch), step(parts, batch, batches__accumulate_steps=4)
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    assert_same(gradients(whole), gradients(parts))


@pytest.mark.parametrize("head", HEADS)
def test_a_step_begins_without_the_gradient_of_the_one_before(
    head: str, make_targets: Callable[..., list[Targets]]
) -> None:
    """Two steps at a rate of nearly 0 on the same images are the same step."""
    batch, detector = make_batch(make_targets), make(head)
    chosen = train_options(batch_size=4, lr=1e-15, optimizer__weight_decay=0.0, optimizer__max_grad_norm=0.0)
    optimizer, seen = make_optimizer(detector, chosen), []
    for _ in range(2):
        train_step(detector, detector, optimizer, batch, chosen, CPU)
        seen.append(gradients(detector))
    assert_same(*seen)
