"""Mask R-CNN R18-FPN of Boxwright and of torchvision, each trained for the same time on the same data, in turn.

    python benchmarks/mask_rcnn_training.py --data DIR --image-size 256 --budget 10m

Both run through Boxwright's training: the same images, augmentation, batches, optimizer, schedule, moving average and
evaluation, in float32, from scratch. Ours is the recipe `mask_rcnn_r18_fpn`, theirs has torchvision's own options. Each
gets as many steps as fit into the budget on this machine: ours as fast as with a trained model, theirs as fast as with
a fresh one, which finds few objects to make masks of, so that their run takes longer than the budget, never shorter.
Printed are the COCO numbers of the last evaluation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.open import open_data
from boxwright.detector import Detector
from boxwright.ops.boxes import clip_to_sizes
from boxwright.structures import Category, ImageSize, LossTotals, Targets
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.workflows.validation import Validation
from boxwright_runtime.detections import Detections
from boxwright_runtime.mask_pasting import paste_masks

SIDES = ("boxwright", "torchvision")


class TorchvisionMaskRCNN(Detector):
    """Torchvision's model behind the interface that training and evaluation know."""

    needs_masks = True

    def __init__(self, categories: Sequence[Category], like: Detector) -> None:
        super().__init__(nn.Identity(), [], nn.Identity(), categories=categories, input_format=like.input_format)
        backbone = _resnet_fpn_extractor(resnet18(norm_layer=nn.BatchNorm2d), 5)
        self.model = MaskRCNN(backbone, len(categories) + 1, _skip_resize=True)

    def forward(
        self, images: Tensor, padding_mask: Tensor | None = None, targets: Sequence[Targets] | None = None
    ) -> Any:
        shapes = [(images.shape[-2], images.shape[-1])] * len(images)
        their_targets = None
        if targets is not None:
            shapes = [target.size for target in targets]
            their_targets = [convert_targets(target) for target in targets]
        features = self.model.backbone(images)
        images = ImageList(images, shapes)
        proposals, first = self.model.rpn(images, features, their_targets)
        predictions, second = self.model.roi_heads(features, proposals, shapes, their_targets)
        return {**first, **second} if targets is not None else predictions

    def loss(
        self, output: dict[str, Tensor], targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Tensor]:
        return output

    def totals(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> LossTotals:
        return LossTotals.of(targets)

    def postprocess(self, output: list[dict[str, Tensor]], image_sizes: Sequence[ImageSize]) -> list[Detections]:
        detections = []
        for own, size in zip(output, image_sizes, strict=True):
            scale = torch.tensor([size.width / size.input_width, size.height / size.input_height]).repeat(2)
            boxes = clip_to_sizes((own["boxes"] * scale)[None], torch.tensor([[size.height, size.width]]))[0]
            # The same numbers as torchvision's own, which a test of ours asserts, but as run lengths.
            masks = paste_masks(own["masks"][:, 0].numpy(), boxes.numpy(), (size.height, size.width))
            detections.append(Detections(boxes, own["scores"], own["labels"] - 1, masks))
        return detections

    def fold(self) -> Detector:
        return deepcopy(self).eval().requires_grad_(False)


def convert_targets(target: Targets) -> dict[str, Tensor]:
    """Convert the objects of an image to torchvision's form, where background is the first class."""
    assert target.masks is not None
    return {"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks.to(torch.uint8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="with annotations/train.json and val.json, and masks")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--out", default="runs/mask_rcnn_training", help="for both runs")
    options = parser.parse_args()
    overrides = {
        "input.image_size": options.image_size,
        "train.budget": options.budget,
        "train.evaluations": 1,
        "train.runtime.precision": options.precision,
    }
    recipe = resolve("mask_rcnn_r18_fpn", overrides).recipe
    data = open_data(options.data, "train")
    validation = Validation(open_data(options.data, "val", categories=data.categories))
    for side in options.sides:
        began = time.monotonic()
        torch.manual_seed(0)
        detector = build_resolved(recipe, categories=data.categories)
        if side == "torchvision":
            detector = TorchvisionMaskRCNN(data.categories, detector)
        folder = Path(options.out) / side
        run = Run(
            detector=detector,
            recipe=recipe,
            data=data,
            augmentation=recipe.augment,
            folder=folder,
            evaluate=validation,
            console=Console(stderr=True),
            began=began,
        )
        progress = run_training(run)
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        print(
            f"{side}: {progress.steps} steps in {progress.seconds:.0f} s, mask AP {last['segm']['AP']:.3f}, mask AP50 "
            f"{last['segm']['AP50']:.3f}, box AP {last['AP']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
