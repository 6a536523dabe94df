"""Detectors of torchvision: its own files through our door, against its own transform, network and post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.detection._utils import overwrite_eps

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.passport import Origin
from boxwright.structures import Category
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.projects.torchvision_releases import find_release
from boxwright.weights.recognize import find_kind, recognize
from boxwright.weights.source import SourceFiles
from boxwright_runtime.detections import Detections
from weights.compared import Recorder, name_version
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images
from weights.torchvision_models import CHANNELS, KINDS, MAX_SIZE, MIN_SIZE, RCNNS, assert_same_masks, make, old_names

SLOW = ("faster v2", "mask", "retinanet")
"""Kinds whose parts the other ones have as well."""

SIZES = {"input.image_size": MIN_SIZE, "input.max_size": MAX_SIZE}


def read(tensors: dict[str, torch.Tensor], folder: Path, release: str | None = None, **overrides: Any) -> ModelWeights:
    """A file of torch's own format, read and converted."""
    torch.save(tensors, folder / "model.pth")
    files = read_source_files(folder / "model.pth")
    if release is not None:
        object.__setattr__(files, "release", release)
    return convert_files(files, {**SIZES, **overrides})


class Pair(NamedTuple):
    kind: str
    theirs: Any
    model: ModelWeights
    ours: Detector


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in KINDS]
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    theirs = make(request.param)
    model = read(theirs.state_dict(), tmp_path_factory.mktemp("file"))
    return Pair(request.param, theirs, model, build_model(model))


def test_detections_and_masks(pair: Pair, record_comparison: Recorder) -> None:
    shift, largest = 1 if pair.kind in RCNNS else 0, Differences(0.0, 0.0)
    for image in draw_images():
        with torch.no_grad():
            (expected,) = pair.theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
        assert len(expected["scores"]) > 10
        assert len(expected["labels"].unique()) > 2
        actual = pair.ours.predict(image)
        assert isinstance(actual, Detections)
        theirs = Expected(expected["scores"], expected["labels"] - shift, expected["boxes"])
        largest = largest.join(assert_same_detections(actual, theirs))
        if pair.kind.startswith("mask"):
            assert_same_masks(actual, expected)
    source, project = pair.model.origin.kind, name_version("torchvision")
    record_comparison(source, pair.kind, project, largest, inputs=pair.ours.input_format)


def test_the_layout_is_torchvisions(pair: Pair) -> None:
    """Written and loaded strictly by torchvision's own model, tensor by tensor."""
    tensors = pair.theirs.state_dict()
    layout = find_kind(pair.model.origin.kind).write(pair.ours)
    assert layout.file_name == "model.pth"
    assert set(tensors) - set(layout.tensors) <= {name for name in tensors if name.endswith("num_batches_tracked")}
    for name, tensor in layout.tensors.items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)
    pair.theirs.load_state_dict(layout.tensors, strict=True)


@pytest.mark.parametrize(
    ("kind", "release"),
    [
        ("faster", "fasterrcnn_resnet50_fpn"),
        pytest.param("mask", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1", marks=pytest.mark.slow),
        ("retinanet", "retinanet_resnet50_fpn.COCO_V1"),
        pytest.param("fcos", "fcos_resnet50_fpn", marks=pytest.mark.slow),
    ],
)
def test_epsilon_of_a_release_is_known_and_that_of_other_files_is_assumed(
    kind: str, release: str, tmp_path: Path
) -> None:
    theirs = make(kind)
    tensors = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    for name, tensor in tensors.items():
        if name.endswith("running_var") and "layer2" in name:  # where 1e-5 is seen
            tensor.copy_(tensor * 1e-4)
            tensors[name.replace("running_var", "weight")].mul_(1e-2)
    theirs.load_state_dict(tensors)
    without = 0.0 if kind != "fcos" else 1e-5
    overwrite_eps(theirs, without)
    named, unnamed = read(tensors, tmp_path, f"torchvision:{release}"), read(tensors, tmp_path)
    assert named.recipe.backbone.options["norm_eps"] == without
    assert [note.partition(":")[0] for note in named.notes] == [  # `read` asks for 200 pixels
        "the weights come with another preprocessing, without which they find less"
    ]
    assert any("backbone.norm_eps" in note for note in unnamed.notes)
    assert any("input.max_size" in note for note in unnamed.notes)
    *_, image = draw_images()
    with torch.no_grad():
        (result,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    expected = Expected(result["scores"], result["labels"] - (1 if kind in RCNNS else 0), result["boxes"])
    assert_same_detections(build_model(named).predict(image), expected)
    overridden = read(tensors, tmp_path, **{"backbone.norm_eps": without})
    assert_same_detections(build_model(overridden).predict(image), expected)
    if not without:
        with pytest.raises(AssertionError):
            assert_same_detections(build_model(unnamed).predict(image), expected)


@pytest.mark.parametrize("kind", ["faster", "mask", "retinanet", "fcos"])
def test_older_names(kind: str, tmp_path: Path) -> None:
    tensors = make(kind).state_dict()
    older = old_names(tensors)
    assert set(older) != set(tensors)
    expected, actual = read(tensors, tmp_path), read(older, tmp_path)
    assert actual.recipe == expected.recipe
    assert set(actual.tensors) == set(expected.tensors)
    for name, tensor in actual.tensors.items():
        torch.testing.assert_close(tensor, expected.tensors[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("recipe", "kind", "overrides", "message"),
    [
        ("faster_rcnn_r18_fpn", "torchvision_rcnn", {}, "give --head.rpn.anchor_grid padded_input$"),
        ("cascade_rcnn_r18_fpn", "torchvision_rcnn", {}, "is of Faster and Mask R-CNN, not of CascadeRCNN"),
        (
            "faster_rcnn_r18_fpn",
            "torchvision_rcnn",
            {"head.roi.extractor": "adaptive"},
            "features from one level",
        ),
        (
            "faster_rcnn_r18_fpn",
            "torchvision_rcnn",
            {
                "head.roi.aligned": True,
                "head.roi.sampling_ratio": 0,
                "head.rpn.whole_pixels": False,
                "neck.extra_relu": False,
                "backbone.depth": 50,
                "backbone.stride_in": "1x1",
            },
            "give --head.roi.sampling_ratio 2 --head.roi.aligned false --head.rpn.anchor_grid padded_input "
            "--head.rpn.whole_pixels true --neck.extra_relu true --backbone.stride_in 3x3$",
        ),
        ("retinanet_r18_fpn", "torchvision_retinanet", {}, "give --head.anchors.anchor_grid padded_input$"),
        (
            "retinanet_r50_pafpn",
            "torchvision_retinanet",
            {"head.anchors.anchor_grid": "padded_input"},
            "one FPN as their neck, not PAFPN",
        ),
        ("fcos_r50_fpn", "torchvision_fcos", {}, "give --head.anchor_grid padded_input$"),
        (
            "fcos_r50_fpn",
            "torchvision_fcos",
            {"head.point_offset": 0.5},
            "give --head.anchor_grid padded_input --head.point_offset 0.0$",
        ),
        (
            "fcos_r50_fpn",
            "torchvision_fcos",
            {"head.anchor_grid": "padded_input", "backbone.stride_in": "1x1"},
            "give --backbone.stride_in 3x3$",
        ),
        (
            "fcos_r50_fpn",
            "torchvision_fcos",
            {
                "head.anchor_grid": "padded_input",
                "backbone.block.activation": "silu",
                "backbone.block.shortcut_activation": "all",
            },
            "give --backbone.block.activation relu --backbone.block.shortcut_activation none$",
        ),
    ],
)
def test_what_torchvision_does_not_have_is_not_written(
    recipe: str, kind: str, overrides: dict[str, Any], message: str
) -> None:
    parsed = resolve(recipe, {"backbone.width": 4, **overrides}).recipe
    detector = build_resolved(parsed, categories=[Category(1, "one"), Category(2, "two")])
    with pytest.raises(ValueError, match=message):
        find_kind(kind).write(detector)


@pytest.mark.parametrize("recipe", ["faster_rcnn_r50_fpn_v2", "mask_rcnn_r50_fpn_v2", "retinanet_r50_fpn_v2"])
def test_recipes_of_torchvisions_models_are_written_as_they_come(recipe: str) -> None:
    parsed = resolve(recipe, {"backbone.width": 8, "head.boxes.hidden_dim": 32} if "rcnn" in recipe else {}).recipe
    detector = build_resolved(parsed, categories=[Category(1, "one")])
    kind = "torchvision_rcnn" if "rcnn" in recipe else "torchvision_retinanet"
    assert find_kind(kind).write(detector).tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roi_heads.keypoint_predictor.x": torch.zeros(1)}, "Keypoint R-CNN"),
        ({"rpn.head.cls_logits.weight": torch.zeros(15, CHANNELS, 1, 1)}, "15 anchors for each cell.*MobileNetV3"),
        (
            {"backbone.body.conv1.weight": None, "backbone.body.0.0.weight": torch.zeros(1)},
            "a backbone that is no ResNet",
        ),
        ({"backbone.fpn.inner_blocks.1.0.weight": torch.zeros(CHANNELS, 77, 1, 1)}, "levels of .*77"),
        ({"surprise": torch.zeros(1)}, "recognized as Faster and Mask R-CNN of torchvision, but surprise is unknown"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    tensors = {**make("faster").state_dict(), **change}
    with pytest.raises(ValueError, match=message) as caught:
        read({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path)
    assert "\n" not in str(caught.value)


RELEASED = {
    "fasterrcnn_resnet50_fpn": (41_755_286, 90),
    "fasterrcnn_resnet50_fpn_v2": (43_712_278, 90),
    "maskrcnn_resnet50_fpn": (44_401_393, 90),
    "maskrcnn_resnet50_fpn_v2": (46_359_409, 90),
    "retinanet_resnet50_fpn": (34_014_999, 91),
    "retinanet_resnet50_fpn_v2": (38_198_935, 91),
    "fcos_resnet50_fpn": (32_269_600, 91),
}
"""Parameters as torchvision states them, norms included, and classes."""


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name: str) -> None:
    """Names and shapes of torchvision's own builder, without storage; nothing is missing or unexplained."""
    count, num_classes = RELEASED[name]
    with torch.device("meta"):
        theirs = get_model(name, weights=None, weights_backbone=None)
    assert find_release(name).builder == name
    files = SourceFiles(origin=Origin(source=name, kind=""), tensors=theirs.state_dict(), release=f"torchvision:{name}")
    kind, source = recognize(files)
    model = source.describe(files)
    with torch.device("meta"):
        ours = build_resolved(resolve(model.recipe, model.overrides).recipe, categories=model.categories)
    converted = model.table.read(files.tensors, ours.state_dict())
    assert not converted.skipped
    assert set(converted.tensors) == set(ours.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert kind.startswith("torchvision_")
    assert len(model.categories) == num_classes
    assert [one.name for one in model.categories if one.id == 17] == ["cat"]
    norms = sum(m.weight.numel() * 2 for m in theirs.backbone.body.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for p in ours.parameters()) in (count, count + norms)
