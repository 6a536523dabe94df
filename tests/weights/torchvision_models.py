"""Small detectors of torchvision with weights that tell images, regions and classes apart."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from boxwright.ops.masks import decode_mask
from boxwright_runtime.detections import Detections
from weights.source_checks import draw_images

CHANNELS, HIDDEN, NUM_LABELS = 64, 32, 7
MIN_SIZE, MAX_SIZE = 136, 200
RCNNS = ("faster", "faster v2", "mask", "mask v2")
DENSE = ("retinanet", "retinanet v2", "fcos")
KINDS = (*RCNNS, *DENSE)

RELEASED_NAMES = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
"""Detectors that torchvision has released and that are read here."""

STDS = {
    "cls_logits": 1.5,
    "bbox_pred": 0.4,
    "cls_score": 2.0,
    "bbox_reg": 0.4,
    "bbox_ctrness": 1.0,
    "mask_fcn_logits": 2.0,
}
"""Standard deviations of predictions, by the name of their layer."""


def make(kind: str, *, eps: float = 1e-5) -> Any:
    """Make a detector with a ResNet-18; predictions are spread, norms have the statistics of an image."""
    torch.manual_seed(0)
    is_v2 = "v2" in kind
    backbone = _backbone(kind, is_v2)
    size: dict[str, Any] = {"min_size": MIN_SIZE, "max_size": MAX_SIZE}
    model: Any
    if kind in RCNNS:
        model = _rcnn(backbone, "mask" in kind, is_v2, size)
    elif kind == "fcos":
        model = FCOS(backbone, NUM_LABELS, **size)
    else:
        sides = tuple(tuple(int(x * 2 ** (i / 3)) for i in range(3)) for x in (32, 64, 128, 256, 512))
        anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
        head = None
        if is_v2:
            norm = partial(nn.GroupNorm, 32)
            head = RetinaNetHead(CHANNELS, anchors.num_anchors_per_location()[0], NUM_LABELS, norm_layer=norm)
        model = RetinaNet(backbone, NUM_LABELS, anchor_generator=anchors, head=head, **size)
    overwrite_eps(model, eps)
    return calibrate(model).eval()


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to what releases before torchvision 0.13 wrote."""
    patterns: list[tuple[str, Any]] = [
        (r"(backbone\.fpn\.\w+_blocks\.\d)\.0\.", r"\1."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"roi_heads\.mask_head\.(\d)\.0\.", lambda matched: f"roi_heads.mask_head.mask_fcn{int(matched[1]) + 1}."),
        (r"(head\.\w+_head\.conv)\.(\d)\.0\.", lambda matched: f"{matched[1]}.{2 * int(matched[2])}."),
    ]
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def assert_same_masks(actual: Detections, expected: dict[str, torch.Tensor]) -> None:
    """Masks of the same boxes; cells at the threshold may differ."""
    assert actual.masks is not None
    compared = 0
    for box, mask in zip(expected["boxes"], expected["masks"][:, 0], strict=True):
        distance, index = (actual.boxes - box).abs().amax(-1).min(0)
        if distance < 0.01:
            differ = torch.as_tensor(decode_mask(actual.masks[int(index)])) != (mask > 0.5)
            assert not differ[(mask - 0.5).abs() > 1e-3].any()
            compared += bool((mask > 0.5).any())
    assert compared > 10


def _backbone(kind: str, is_v2: bool) -> BackboneWithFPN:
    norm: Any = nn.BatchNorm2d if is_v2 else FrozenBatchNorm2d
    stages = (1, 2, 3, 4) if kind in RCNNS else (2, 3, 4)
    return BackboneWithFPN(
        resnet18(norm_layer=norm),
        {f"layer{stage}": str(index) for index, stage in enumerate(stages)},
        [64 * 2 ** (stage - 1) for stage in stages],
        CHANNELS,
        extra_blocks=None if kind in RCNNS else LastLevelP6P7(512 if is_v2 else CHANNELS, CHANNELS),
        norm_layer=norm if is_v2 and kind in RCNNS else None,
    )


def _rcnn(backbone: BackboneWithFPN, masks: bool, is_v2: bool, size: dict[str, Any]) -> nn.Module:
    norm = nn.BatchNorm2d if is_v2 else None
    box_head: nn.Module = TwoMLPHead(CHANNELS * 49, HIDDEN)
    if is_v2:
        box_head = FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 4, [HIDDEN], norm_layer=norm)
    options: dict[str, Any] = {
        "box_head": box_head,
        "box_predictor": FastRCNNPredictor(HIDDEN, NUM_LABELS),
        "rpn_head": RPNHead(CHANNELS, 3, conv_depth=2 if is_v2 else 1),
    }
    if not masks:
        return FasterRCNN(backbone, **options, **size)
    options["mask_head"] = MaskRCNNHeads(CHANNELS, [HIDDEN] * 4, 1, norm_layer=norm)
    options["mask_predictor"] = MaskRCNNPredictor(HIDDEN, HIDDEN, NUM_LABELS)
    return MaskRCNN(backbone, **options, **size)


@torch.no_grad()
def calibrate(model: Any, *, residual_gain: float = 1.0) -> Any:
    """Draw weights that tell images, regions and classes apart, and give norms the statistics of an image.

    Args:
        model: a detector of torchvision; changed in place.
        residual_gain: factor of the last norm of residual blocks. With 1, rounding grows threefold in each stage of a
            ResNet-50, to 1e-3 in the scores.
    """
    generator = torch.Generator().manual_seed(1)
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.05, generator=generator)
            std = STDS.get(name.rpartition(".")[2])
            if std is not None:
                hooks.append(module.register_forward_hook(partial(_scale, std=std)))
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.weight.data.uniform_(0.4, 0.8, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            hooks.append(module.register_forward_pre_hook(_take_statistics))
        if isinstance(module, nn.GroupNorm):
            module.weight.uniform_(0.5, 1.0, generator=generator)
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            (block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight.mul_(residual_gain)
    model.eval()([torch.from_numpy(draw_images()[0]).permute(2, 0, 1) / 255])
    for hook in hooks:
        hook.remove()
    return model


def _take_statistics(norm: Any, inputs: tuple[Tensor]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))


def _scale(layer: nn.Module, inputs: tuple[Tensor], output: Tensor, *, std: float) -> Tensor:
    """Scale a layer the first time that it is called: all levels share it."""
    if getattr(layer, "is_scaled", False):
        return layer.forward(*inputs)  # type: ignore[no-any-return]
    factor = std / output.std()
    for parameter in layer.parameters():
        parameter.mul_(factor)
    layer.is_scaled = True  # type: ignore[assignment]
    return output * factor
