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
from collections.abc import Callable

import torch
import torchvision
from torchvision.models.detection import backbone_utils, retinanet

from boxwright.backbones.resnet import ResNet
from boxwright.dense.output import DenseOutput
from boxwright.detector import Detector
from boxwright.heads.retinanet import RetinaNet
from boxwright.necks.fpn import FPN
from boxwright.ops.anchors import grid_anchors
from boxwright.structures import Category, ImageSize
from boxwright_runtime.input_format import InputFormat
from side_by_side import in_turn, random_objects


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


def steps(options: argparse.Namespace) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step of each, without the optimizer."""
    side, generator = options.image_size, torch.Generator().manual_seed(0)
    ours = boxwright_retinanet(options.version, options.classes, frozen=options.frozen).train()
    theirs = torchvision_retinanet(options.version, options.classes, frozen=options.frozen).train()
    images = torch.rand(options.batch, 3, side, side, generator=generator)
    targets = [random_objects(options.objects, side, options.classes, generator) for _ in range(options.batch)]
    # As the training loop does on a CPU.
    channels_last = images.contiguous(memory_format=torch.channels_last)
    ours.to(memory_format=torch.channels_last)

    def our_step() -> None:
        ours.zero_grad()
        sum(ours.loss(ours(channels_last, None, targets), targets).values()).backward()

    def their_step() -> None:
        theirs.zero_grad()
        sum(theirs(list(images), [{"boxes": t.boxes, "labels": t.labels} for t in targets]).values()).backward()

    return our_step, their_step


def detections(options: argparse.Namespace) -> tuple[Callable[[], None], Callable[[], None]]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", type=int, choices=(1, 2), default=1)
    parser.add_argument("--image-size", type=int, default=512, help="a multiple of 128")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--classes", type=int, default=91)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frozen", action="store_true", help="constant norms, stem and c2 as they are")
    parser.add_argument("--detections", action="store_true", help="post-processing of one image, not training")
    parser.add_argument("--candidates", type=float, default=0.001, help="fraction of logits above the threshold")
    options = parser.parse_args()
    torch.manual_seed(0)
    ours, theirs = (detections if options.detections else steps)(options)
    our_time, their_time = in_turn(ours, theirs, rounds=options.rounds)
    what = "post-processing" if options.detections else "training step"
    print(
        f"RetinaNet V{options.version} R50, {options.image_size} pixels, {options.classes} classes, "
        f"{torch.get_num_threads()} threads, {what}: boxwright {our_time * 1e3:.0f} ms, "
        f"torchvision {their_time * 1e3:.0f} ms, ratio {their_time / our_time:.2f}"
    )


if __name__ == "__main__":
    main()
