"""Backbones of torchvision: every level as torchvision computes it, and networks that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from boxwright.compose.parts import find_part
from boxwright.passport import Origin
from boxwright.weights.projects.torchvision_releases import find_release
from boxwright.weights.recognize import recognize
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.torchvision_backbone import TorchvisionBackbone
from random_weights import calibrate
from weights.compared import Recorder, name_version
from weights.source_checks import example_files

LEVELS = {"layer1": "c2", "layer2": "c3", "layer3": "c4", "layer4": "c5"}
MOBILENET_LEVELS = {"features.3": "c2", "features.6": "c3", "features.13": "c4", "features.17": "c5"}


def files_of(tensors: dict[str, Tensor], **options: Any) -> SourceFiles:
    return SourceFiles(origin=Origin(source="model.pth", kind=""), tensors=tensors, **options)


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models, name)()
    calibrate(model, torch.randn(2, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "skipped"),
    [("resnet18", 2), ("resnet50", 2)],
)
def test_levels(name: str, skipped: int, record_comparison: Recorder) -> None:
    theirs = make(name)
    files = files_of(theirs.state_dict())
    kind, source = recognize(files)
    assert kind == "torchvision_backbone"
    backbone = source.describe_backbone(files)
    part = dict(backbone.part)
    ours = find_part("backbones", part.pop("name"))(**part, levels=("c2", "c3", "c4", "c5"))
    converted = backbone.table.read(files.tensors, ours.state_dict())
    assert len(converted.skipped) == skipped
    ours.load_state_dict(converted.tensors)
    nodes = LEVELS if name.startswith("resnet") else MOBILENET_LEVELS
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected, actual = create_feature_extractor(theirs, nodes)(images), ours.eval()(images)
    largest = 0.0
    for level, x in expected.items():
        assert x.std() > 0.01
        torch.testing.assert_close(actual[level], x, rtol=1e-4, atol=1e-5)
        largest = max(largest, float((actual[level] - x).abs().max() / x.std()))
    project, differences = name_version("torchvision"), {"levels": largest}
    record_comparison("torchvision_backbone", name, project, differences, images=[(96, 64)])
    assert backbone.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(("name", "depth"), [("resnet101", 101), ("resnet152", 152)])
def test_depths(name: str, depth: int) -> None:
    with torch.device("meta"):
        tensors = getattr(torchvision.models, name)().state_dict()
    assert TorchvisionBackbone().describe_backbone(files_of(tensors)).part == {
        "name": "resnet",
        "depth": depth,
        "width": 64,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wide_resnet50_2", "a wide ResNet or a ResNeXt"),
        ("resnext50_32x4d", "a wide ResNet or a ResNeXt"),
    ],
)
def test_other_networks_of_the_same_names_are_refused(name: str, message: str) -> None:
    with torch.device("meta"):
        files = files_of(getattr(torchvision.models, name)().state_dict())
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone().describe_backbone(files)


def test_timms_resnets_have_the_same_names_and_say_so() -> None:
    with torch.device("meta"):
        tensors = torchvision.models.resnet18().state_dict()
    source = TorchvisionBackbone()
    assert source.recognizes(files_of(tensors))
    assert not source.recognizes(files_of(tensors, config={"architecture": "resnet18"}))
    assert not source.recognizes(files_of(tensors, release="timm:resnet18.a1_in1k"))


OF_TIMM = ["resnet18d", "densenet121", "cspdarknet53", "mobilevit_xxs", "vgg11", "resnext50_32x4d", "hrnet_w18_small"]


@pytest.mark.parametrize("name", OF_TIMM)
def test_a_file_that_is_called_like_a_model_of_timm_is_that_model(name: str) -> None:
    with torch.device("meta"):
        tensors = timm.create_model(name).state_dict()
    files = replace(files_of(tensors), origin=Origin(source=f"dir/{name}-tuned.pth", kind=""))
    kind, source = recognize(files)
    assert kind == "timm"
    backbone = source.describe_backbone(files)
    assert backbone.part["model"] == name
    with torch.device("meta"):
        expected = find_part("backbones", "timm")(model=name, levels=backbone.part["levels"]).state_dict()
    assert set(backbone.table.read(tensors, expected).tensors) == set(expected)


def test_a_name_alone_is_no_network() -> None:
    """Of a detector on that network, say."""
    files = example_files("model.backbone.conv1.weight", "head.weight")
    files = replace(files, origin=Origin(source="resnet18d-detector.pth", kind=""))
    with pytest.raises(ValueError, match=r"weights of no known kind \(tried .*timm"):
        recognize(files)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_networks_of_torchvision_that_timm_has_by_the_same_name(name: str) -> None:
    """The maps of each level are torchvision's."""
    theirs = make(name)
    files = files_of(theirs.state_dict(), release=f"torchvision:{name}")
    kind, source = recognize(files)
    backbone = source.describe_backbone(files)
    assert (kind, backbone.part["model"], backbone.mean) == ("timm", name, (0.485, 0.456, 0.406))
    assert not backbone.assumptions
    ours = find_part("backbones", "timm")(model=name, levels=("c2", "c3", "c4", "c5"))
    ours.load_state_dict(backbone.table.read(files.tensors, ours.state_dict()).tensors)
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected, actual = create_feature_extractor(theirs, LEVELS)(images), ours.eval()(images)
    for level, x in expected.items():
        torch.testing.assert_close(actual[level], x, rtol=1e-4, atol=1e-5)


def test_the_classifier_of_torchvisions_vgg_is_skipped() -> None:
    with torch.device("meta"):
        tensors = torchvision.models.vgg11().state_dict()
    files = files_of(tensors, release="torchvision:vgg11")
    backbone = recognize(files)[1].describe_backbone(files)
    with torch.device("meta"):
        expected = find_part("backbones", "timm")(model="vgg11", levels=backbone.part["levels"]).state_dict()
    converted = backbone.table.read(tensors, expected)
    assert set(converted.skipped) == {name for name in tensors if name.startswith("classifier.")}


def test_what_is_not_read_says_what_is() -> None:
    with pytest.raises(ValueError, match=r"efficientnet_b0.*kinds that can are .*vgg\*.*timm:efficientnet_b0$"):
        find_release("efficientnet_b0")
    with torch.device("meta"):
        files = files_of(torchvision.models.wide_resnet50_2().state_dict())
    with pytest.raises(ValueError, match=r"a wide ResNet or a ResNeXt .*call the file by its name there"):
        recognize(files)[1].describe_backbone(files)
