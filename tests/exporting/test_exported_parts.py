"""Every head, neck and backbone of the folders exports, and the graph gives what the detector gives in each runtime."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.mark import ParameterSet
from graph_checks import LETTERBOX, PADDED, SHORTEST_SIDE, SQUARE, check_export, make_inputs

from boxwright.compose.parts import Folder, list_parts
from boxwright.detector import Detector
from boxwright.exporting.graph import export_network
from boxwright.queries import RefiningDecoderOptions, TransformerDecoderOptions
from boxwright.structures import Category
from boxwright_runtime.input_format import InputFormat
from part_checks import build, composed
from random_weights import calibrate, shake

NUM_CLASSES = 3

DINOV3 = "vit_tiny_patch16_dinov3_qkvb"

HEADS: dict[str, tuple[str, list[str], InputFormat]] = {
    "atss": ("resnet", ["fpn"], PADDED),
    "cascade_rcnn": ("resnet", ["fpn"], SHORTEST_SIDE),
    "classifier": ("resnet_vd", [], SQUARE),
    "deformable_detr": ("resnet", ["deformable_encoder"], PADDED),
    "detr": ("resnet", ["detr_encoder"], SHORTEST_SIDE),
    "dfine": ("timm", ["hybrid_encoder"], SQUARE),
    "dino": ("resnet", ["deformable_encoder"], PADDED),
    "efficientdet": ("timm", ["bifpn"], LETTERBOX),
    "faster_rcnn": ("resnet", ["fpn"], PADDED),
    "fcos": ("resnet", ["fpn"], PADDED),
    "lwdetr": ("vit", ["multi_scale_projector"], SQUARE),
    "mask_rcnn": ("resnet", ["fpn"], SQUARE),
    "retinanet": ("resnet", ["fpn"], SHORTEST_SIDE),
    "rtdetr": ("resnet_vd", ["hybrid_encoder"], SQUARE),
}
"""Detectors as they are used: all ways to resize are among them."""

ONE_OF_TWO = TransformerDecoderOptions(num_heads=2, feedforward_dim=16, num_layers=2, dropout=0.0, eval_layers=1)

LEAN = RefiningDecoderOptions(num_heads=2, feedforward_dim=16, num_layers=2, design="swiglu_shared")

FAST = ("classifier", "mask_rcnn", "rtdetr")

HEADS_WITH_MASKS = ("deformable_detr", "detr", "dfine", "lwdetr", "rtdetr")


def parts(folder: Folder) -> list[str | ParameterSet]:
    """List the parts of a folder, all but the fast ones as slow tests."""
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in list_parts(folder)]


def export(backbone: str, necks: list[str], head: str, input_format: InputFormat, **options: Any) -> None:
    detector = composed(backbone, necks, head, NUM_CLASSES)
    detector.input_format = input_format
    check_export(detector, **options)


@pytest.mark.parametrize("head", parts("heads"))
def test_heads(head: str) -> None:
    backbone, necks, input_format = HEADS.get(head, ("resnet", ["fpn"], SQUARE))
    export(backbone, necks, head, input_format)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS_WITH_MASKS)
def test_masks_of_queries(head: str) -> None:
    backbone, necks, input_format = HEADS[head]
    export(backbone, necks, f"{head}+masks", input_format)


@pytest.mark.parametrize("neck", parts("necks"))
def test_necks_with_free_sizes(neck: str) -> None:
    export("resnet", [neck], "fcos", SHORTEST_SIDE)


@pytest.mark.parametrize("backbone", parts("backbones"))
def test_backbones_with_free_sizes(backbone: str) -> None:
    export(backbone, ["fpn"], "fcos", SHORTEST_SIDE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("neck", "head"), [("deformable_encoder", "deformable_detr"), ("hybrid_encoder", "rtdetr")], ids=str
)
def test_plain_operators(neck: str, head: str) -> None:
    export("resnet_vd", [neck], head, PADDED, ops="plain")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("neck", "neck_options", "head", "head_options"),
    [
        ("deformable_encoder", {"across_levels": False}, "deformable_detr", {}),
        ("detr_encoder", {}, "detr", {"nms_threshold": 0.3, "decoder": ONE_OF_TWO}),
        ("lite_encoder", {}, "dfine", {"decoder": LEAN}),
        ("hybrid_encoder", {"fusion": "elan_slim", "activation": "silu"}, "rtdetr", {"decoder": LEAN}),
    ],
    ids=str,
)
def test_options_of_parts(neck: str, neck_options: dict[str, Any], head: str, head_options: dict[str, Any]) -> None:
    """Levels apart are cut out of all tokens, suppression follows a decoder, norms have no mean."""
    backbone = build("backbones", "resnet")
    between = build("necks", neck, backbone.out_spec, **neck_options)
    detector = Detector(
        backbone,
        [between],
        build("heads", head, between.out_spec, NUM_CLASSES, **head_options),
        categories=[Category(label, f"class {label}") for label in range(NUM_CLASSES)],
        input_format=PADDED,
    )
    check_export(detector)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "neck"), [("test_vit", "averaged_pyramid"), (DINOV3, "multi_scale_projector")])
def test_windows_with_free_sizes(model: str, neck: str) -> None:
    """Windows, resized positions and rotations have sizes that follow from the image."""
    backbone = build("backbones", "vit", model=model, blocks=(0, 1), num_windows=2, global_blocks=(1,))
    between = build("necks", neck, backbone.out_spec)
    detector = Detector(
        backbone,
        [between],
        build("heads", "fcos", between.out_spec, NUM_CLASSES),
        categories=[Category(label, f"class {label}") for label in range(NUM_CLASSES)],
        input_format=SHORTEST_SIDE,
    )
    check_export(detector)


@pytest.mark.slow
def test_further_groups_of_queries_stay_out() -> None:
    """A graph has the weights of the group that predicts."""
    sizes = []
    for groups in (1, 3):
        backbone = build("backbones", "resnet_vd")
        head = build("heads", "lwdetr", backbone.out_spec, NUM_CLASSES, **{"supervision.num_groups": groups})
        categories = [Category(label, f"class {label}") for label in range(NUM_CLASSES)]
        model = export_network(Detector(backbone, [], head, categories=categories, input_format=SQUARE))
        sizes.append(sorted(tuple(one.dims) for one in model.graph.initializer))
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_auxiliary_heads_stay_out() -> None:
    """A graph has the weights of the decoder alone."""
    sizes = []
    for names in ((), ("atss",)):
        backbone = build("backbones", "resnet_vd")
        head = build("heads", "rtdetr", backbone.out_spec, NUM_CLASSES, **{"supervision.auxiliary": names})
        if names:
            head.add_auxiliary({"atss": build("heads", "atss", head.auxiliary_spec(), NUM_CLASSES)})
        categories = [Category(label, f"class {label}") for label in range(NUM_CLASSES)]
        model = export_network(Detector(backbone, [], head, categories=categories, input_format=SQUARE))
        sizes.append(sorted(tuple(one.dims) for one in model.graph.initializer))
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_switchable_convolutions_and_soft_nms() -> None:
    """Both have other operators than what the parts have by themselves."""
    backbone = build("backbones", "rfp", atrous="switchable")
    soft: dict[str, Any] = {"detection.soft_nms": True, "detection.max_detections": 10}
    detector = Detector(
        backbone,
        [],
        build("heads", "efficientdet", backbone.out_spec, NUM_CLASSES, **soft),
        categories=[Category(label, f"class {label}") for label in range(NUM_CLASSES)],
        input_format=SHORTEST_SIDE,
    )
    shake(detector)
    # Else channels that no norm has seen would make infinities of the unbounded factors of the switches.
    calibrate(detector, make_inputs(SHORTEST_SIDE, (120, 133), 4)[0])
    check_export(detector, shaken=True)
