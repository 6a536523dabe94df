"""Any backbone, neck and head trains with activation checkpointing as without: losses, gradients and buffers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from boxwright.compose.parts import list_parts
from boxwright.compose.train_options import BatchOptions, OptimizerOptions, RuntimeOptions, TrainOptions
from boxwright.detector import Detector
from boxwright.structures import Batch, ImageSize, Targets
from boxwright.training.activation_checkpointing import find_blocks
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step
from part_checks import composed

CASES = [
    *((backbone, "hybrid_encoder", "rtdetr") for backbone in list_parts("backbones")),
    *(("resnet", neck, "rtdetr") for neck in list_parts("necks") if neck != "hybrid_encoder"),
    *(("resnet", "fpn", head) for head in list_parts("heads") if head != "rtdetr"),
]


def images_with_objects(detector: Detector) -> Batch:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 56.0], [30.0, 4.0, 60.0, 30.0]])
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    targets = Targets(torch.tensor([0, 2]), boxes, (64, 64), masks if detector.needs_masks else None)
    if detector.task != "detection":
        targets = targets._replace(labels=targets.labels[:1], boxes=targets.boxes[:1])
    images = torch.rand(2, 3, 64, 64, generator=generator)
    return Batch(images, None, [targets, targets], [ImageSize(64, 64, 64, 64)] * 2, [0, 1])


def step(detector: Detector, *, checkpointing: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses of a step; its gradients, and all buffers after it."""
    options = TrainOptions(
        batch_size=2,
        optimizer=OptimizerOptions(max_grad_norm=0.0),
        batches=BatchOptions(activation_checkpointing=checkpointing),
        runtime=RuntimeOptions(precision="float32", device="cpu"),
    )
    torch.manual_seed(1)
    batch, optimizer = images_with_objects(detector), make_optimizer(detector, options)
    result = train_step(detector, detector, optimizer, batch, options, torch.device("cpu"))
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    return result.losses, {**gradients, **dict(detector.named_buffers())}


@pytest.mark.parametrize(("backbone", "neck", "head"), CASES, ids=str)
def test_a_step_is_the_same(backbone: str, neck: str, head: str) -> None:
    plain = composed(backbone, [neck], head, 4).train()
    again = deepcopy(plain)
    assert find_blocks(again.backbone)
    names = list(again.state_dict())
    losses, tensors = step(plain, checkpointing=False)
    other_losses, other = step(again, checkpointing=True)
    assert losses == other_losses
    assert tensors.keys() == other.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, other[name])] == []
    assert list(again.state_dict()) == names
