"""Faster and Mask R-CNN of Boxwright beside those of torchvision: the same model, batch and precision, as ratios.

    python benchmarks/rcnn_against_torchvision.py --depth 18 --image-size 256 --batch 4
    python benchmarks/rcnn_against_torchvision.py --depth 50 --image-size 512 --batch 2
    python benchmarks/rcnn_against_torchvision.py --depth 50 --image-size 640 --batch 1 --inference
    python benchmarks/rcnn_against_torchvision.py --masks

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike. ``--frozen`` trains as from pretrained weights: constant norms, stem
and c2 as they are. In prediction both are made sure of some classes, so that there is something to suppress and, with
``--masks``, to look at; ours has norms folded and channels last, as it is used, theirs channels last where asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection import MaskRCNN as TheirMaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from boxwright.backbones.resnet import ResNet
from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.necks.fpn import FPN
from boxwright.structures import Category, ImageSize
from boxwright.training.step import targets_to
from boxwright_runtime.input_format import InputFormat
from side_by_side import Action, Row, autocast, begin, compare, make_common_parser, print_rows, random_objects
from training_steps import our_step, their_step, with_precision

CASES = (
    "--depth 18 --image-size 256 --batch 4",
    "--depth 50 --image-size 512 --batch 2",
    "--depth 50 --image-size 512 --batch 1 --inference",
    "--masks --depth 18 --image-size 256 --batch 4",
)
QUICK = (
    "--image-size 64 --batch 1 --objects 2 --classes 3",
    "--image-size 64 --batch 1 --inference --classes 3",
    "--masks --image-size 64 --batch 1 --objects 2 --classes 3",
)


def our_detector(options: argparse.Namespace) -> Detector:
    norm, frozen = ("frozen", 2) if options.frozen else ("batch", 0)
    backbone = ResNet(depth=options.depth, norm=norm, frozen_stages=frozen, levels=("c2", "c3", "c4", "c5"))
    neck = FPN(backbone.out_spec, extra_levels=1)
    head = (MaskRCNN if options.masks else FasterRCNN)(neck.out_spec, options.classes)
    categories = [Category(i, f"class {i}") for i in range(options.classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def their_detector(options: argparse.Namespace) -> TheirFasterRCNN:
    """For images that are not resized."""
    norm = torchvision.ops.FrozenBatchNorm2d if options.frozen else nn.BatchNorm2d
    resnet = getattr(torchvision.models, f"resnet{options.depth}")(norm_layer=norm)
    backbone = _resnet_fpn_extractor(resnet, 3 if options.frozen else 5)
    kind: Any = TheirMaskRCNN if options.masks else TheirFasterRCNN
    return kind(backbone, options.classes + 1, _skip_resize=True)  # type: ignore[no-any-return]


def steps(options: argparse.Namespace, precision: str) -> tuple[Action, Action]:
    """A training step of each."""
    side, generator = options.image_size, torch.Generator().manual_seed(0)
    ours, theirs = our_detector(options), their_detector(options).to(options.device)
    images = torch.rand(options.batch, 3, side, side, generator=generator)
    targets = [random_objects(options.objects, side, options.classes, generator, masks=True) for _ in images]
    their_images = list(images.to(options.device))
    their_targets = [
        {"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.to(torch.uint8)}
        for t in targets_to(targets, torch.device(options.device))
    ]
    training = with_precision(TrainOptions(), precision)
    return our_step(ours, images, targets, training, options.device), their_step(
        theirs, lambda: sum(theirs(their_images, their_targets).values()), training, options.device
    )


@torch.no_grad()
def sure_of_something(model: nn.Module, num_logits: int) -> None:
    """Classes of fresh detectors are all alike, below every threshold."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == num_logits:
            module.weight.normal_(std=3 * module.in_features**-0.5)


def predictions(options: argparse.Namespace, precision: str) -> tuple[Action, Action]:
    """From images to detections, of both as they are used: ours with norms folded."""
    side = options.image_size
    ours, theirs = our_detector(options).eval(), their_detector(options).eval().to(options.device)
    for model in (ours, theirs):
        sure_of_something(model, options.classes + 1)
    ours = ours.fold().to(options.device, memory_format=torch.channels_last)
    if options.channels_last:
        theirs.to(memory_format=torch.channels_last)
    images = torch.rand(options.batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(options.device)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    sizes = [ImageSize(side, side, side, side)] * options.batch

    def our_prediction() -> Any:
        with torch.inference_mode():
            with autocast(precision, options.device):
                output = ours(channels_last)
            return ours.postprocess(output, sizes)

    def their_prediction() -> Any:
        with torch.inference_mode(), autocast(precision, options.device):
            return theirs(list(images))

    counts = len(our_prediction()[0].scores), len(their_prediction()[0]["scores"])
    print(f"objects in the first image: {counts[0]} and {counts[1]}")
    return our_prediction, their_prediction


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=5, devices=True)
    parser.add_argument("--depth", type=int, choices=(18, 34, 50), default=18)
    parser.add_argument("--image-size", type=int, default=256, help="a multiple of 64")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=90)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--frozen", action="store_true", help="constant norms, stem and c2 as they are")
    parser.add_argument("--masks", action="store_true", help="Mask R-CNN")
    parser.add_argument("--inference", action="store_true", help="images to detections, not training")
    parser.add_argument("--channels-last", action="store_true", help="theirs too, in prediction")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step, or images to detections, in each precision."""
    for precision in options.precision:
        begin(options)
        sides = (predictions if options.inference else steps)(options, precision)
        work = (
            f"{'images to detections' if options.inference else 'training step'} of "
            f"{'Mask' if options.masks else 'Faster'} R-CNN R{options.depth}, {options.image_size} px, "
            f"batch {options.batch}"
        )
        yield compare(work, "torchvision", *sides, options, precision)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
