"""RetinaNet of Boxwright beside RetinaNet of torchvision: the same model, batch and precision, in turn, as ratios.

    python benchmarks/retinanet_against_torchvision.py
    python benchmarks/retinanet_against_torchvision.py --version 2 --image-size 320
    python benchmarks/retinanet_against_torchvision.py --detections --image-size 640 --classes 80

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike. ``--frozen`` trains as from pretrained weights: constant norms, stem
and c2 as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torchvision
from torchvision.models.detection import backbone_utils, retinanet

from boxwright.backbones.resnet import ResNet
from boxwright.compose.train_options import TrainOptions
from boxwright.dense.output import DenseOutput
from boxwright.detector import Detector
from boxwright.heads.retinanet import RetinaNet
from boxwright.necks.fpn import FPN
from boxwright.ops.anchors import grid_anchors
from boxwright.structures import Category, ImageSize
from boxwright.training.step import targets_to
from boxwright_runtime.input_format import InputFormat
from side_by_side import Action, Row, begin, compare, make_common_parser, print_rows, random_objects
from training_steps import our_step, their_step, with_precision

CASES = ("", "--detections --image-size 640 --classes 80")
QUICK = ("--image-size 128 --batch 1 --objects 2", "--detections --image-size 128 --classes 3")


def boxwright_retinanet(version: int, num_classes: int, *, frozen: bool) -> Detector:
    """Layers and options of torchvision's first or second version."""
    backbone = ResNet(depth=50, norm="frozen" if frozen else "batch", frozen_stages=2 if frozen else 0)
    neck = FPN(backbone.out_spec, extra_levels=2, extra="conv_output" if version == 1 else "conv_input")
    if version == 1:
        head = RetinaNet(neck.out_spec, num_classes)
    else:
        head = RetinaNet(neck.out_spec, num_classes, norm="group", box_loss="giou")
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=512))


def torchvision_retinanet(version: int, num_classes: int, *, frozen: bool) -> retinanet.RetinaNet:
    """For images that are not resized."""
    build = (retinanet.retinanet_resnet50_fpn, retinanet.retinanet_resnet50_fpn_v2)[version - 1]
    model = build(weights=None, weights_backbone=None, num_classes=num_classes, _skip_resize=True)
    if frozen:
        # What it does with a pretrained backbone, which a benchmark should not have to download.
        model.backbone = backbone_utils._resnet_fpn_extractor(
            torchvision.models.resnet50(norm_layer=torchvision.ops.FrozenBatchNorm2d),
            3,
            returned_layers=[2, 3, 4],
            extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelP6P7(256 if version == 1 else 2048, 256),
        )
    return model


def steps(options: argparse.Namespace, precision: str) -> tuple[Action, Action]:
    """A training step of each."""
    side, generator = options.image_size, torch.Generator().manual_seed(0)
    ours = boxwright_retinanet(options.version, options.classes, frozen=options.frozen)
    theirs = torchvision_retinanet(options.version, options.classes, frozen=options.frozen).to(options.device)
    images = torch.rand(options.batch, 3, side, side, generator=generator)
    targets = [random_objects(options.objects, side, options.classes, generator) for _ in images]
    training = with_precision(TrainOptions(), precision)
    their_images = list(images.to(options.device))
    their_targets = [{"boxes": t.boxes, "labels": t.labels} for t in targets_to(targets, torch.device(options.device))]
    return our_step(ours, images, targets, training, options.device), their_step(
        theirs, lambda: sum(theirs(their_images, their_targets).values()), training, options.device
    )


def detections(options: argparse.Namespace) -> tuple[Action, Action]:
    """From the same outputs to detections, with so many logits above the score threshold."""
    side, generator = options.image_size, torch.Generator().manual_seed(0)
    ours = boxwright_retinanet(options.version, options.classes, frozen=False).eval()
    theirs = torchvision_retinanet(options.version, options.classes, frozen=False).eval()
    threshold = torch.logit(torch.tensor(0.05))
    quantile = torch.special.ndtri(torch.tensor(1 - options.candidates))
    levels = ours.necks[0].out_spec.values()
    sides = [-(-side // level.stride) for level in levels]
    base = ours.head.base_anchors
    anchors = [grid_anchors(*at) for at in zip(base, sides, sides, [level.stride for level in levels], strict=True)]
    logits = [
        torch.randn(1, len(level), options.classes, generator=generator) + threshold - quantile for level in anchors
    ]
    deltas = [torch.randn(1, len(level), 4, generator=generator) * 0.1 for level in anchors]
    output = DenseOutput(tuple(logits), tuple(deltas), tuple(anchors), torch.tensor([[float(side), float(side)]]))
    size = [ImageSize(side, side, side, side)]

    @torch.inference_mode()
    def our_detections() -> None:
        ours.postprocess(output, size)

    @torch.inference_mode()
    def their_detections() -> None:
        theirs.postprocess_detections({"cls_logits": logits, "bbox_regression": deltas}, [anchors], [(side, side)])

    return our_detections, their_detections


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=5, devices=True)
    parser.add_argument("--version", type=int, choices=(1, 2), default=1)
    parser.add_argument("--image-size", type=int, default=512, help="a multiple of 128")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--classes", type=int, default=91)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--frozen", action="store_true", help="constant norms, stem and c2 as they are")
    parser.add_argument(
        "--detections", action="store_true", help="post-processing of one image, on the CPU in float32, not training"
    )
    parser.add_argument("--candidates", type=float, default=0.001, help="fraction of logits above the threshold")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step in each precision, or post-processing."""
    model = f"RetinaNet V{options.version} R50, {options.image_size} px"
    if options.detections:
        if torch.device(options.device).type != "cpu":
            print("  post-processing is compared on the CPU alone")
            return
        begin(options)
        yield compare(
            f"post-processing of {model}, {options.classes} classes", "torchvision", *detections(options), options
        )
        return
    for precision in options.precision:
        begin(options)
        work = f"training step of {model}, batch {options.batch}"
        yield compare(work, "torchvision", *steps(options, precision), options, precision)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
