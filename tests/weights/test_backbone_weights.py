"""Backbones of one run in another detector: what fits, across strides, dilations, norms and table sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.weights.backbone import load_backbone_from, read_backbone_weights
from boxwright.workflows.backbone_report import report_transfer

BACKBONE = {"name": "resnet", "depth": 18, "width": 8, "levels": ["c5"]}


def classifier(path: Path, **backbone: Any) -> Detector:
    """A classifier with random weights, also as a checkpoint at ``path``."""
    recipe = resolve("resnet18_classifier", {"backbone": {**BACKBONE, **backbone}}).recipe
    torch.manual_seed(1)
    detector = boxwright.build(recipe, num_classes=4)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
    detector.save(path)
    return detector


def retinanet(**backbone: Any) -> Detector:
    torch.manual_seed(2)
    overrides = {"backbone": {**BACKBONE, "levels": ["c3", "c4", "c5"], **backbone}, "image_size": 64}
    return boxwright.build("retinanet_r18_fpn", num_classes=2, overrides=overrides)


@pytest.mark.parametrize(
    "backbone",
    [
        {},
        {"dilation": "all"},
        {"dilation": "after_first"},
        {"norm": "frozen", "frozen_stages": 2},
        {"levels": ["c4", "c5"]},
    ],
    ids=str,
)
def test_everything_fits_across_strides_dilations_norms_and_levels(tmp_path: Path, backbone: dict[str, Any]) -> None:
    source, target = classifier(tmp_path / "a.pt"), retinanet(**backbone)
    transfer = load_backbone_from(target, tmp_path / "a.pt")
    assert (*transfer.skipped, *transfer.new) == ()
    weights = source.backbone.state_dict()
    for name, tensor in target.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
            assert name in transfer.loaded


def test_the_same_levels_come_out(tmp_path: Path) -> None:
    source, target = classifier(tmp_path / "a.pt").eval(), retinanet(norm="frozen", frozen_stages=5).eval()
    load_backbone_from(target, tmp_path / "a.pt")
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(target.backbone(images)["c5"], source.backbone(images)["c5"], rtol=1e-5, atol=1e-5)


def test_a_dilated_stage_has_every_cell_of_the_plain_one(tmp_path: Path) -> None:
    """The hole algorithm: the weights mean the same at half the stride."""
    source, target = classifier(tmp_path / "a.pt").eval(), retinanet(dilation="after_first").eval()
    load_backbone_from(target, tmp_path / "a.pt")
    images = torch.rand(1, 3, 64, 96)
    fine, coarse = target.backbone(images)["c5"], source.backbone(images)["c5"]
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse, rtol=1e-4, atol=1e-5)


def test_another_depth_loads_the_blocks_that_it_has(tmp_path: Path) -> None:
    source, target = classifier(tmp_path / "a.pt"), retinanet(depth=34)
    transfer = load_backbone_from(target, tmp_path / "a.pt")
    assert not transfer.skipped
    assert set(transfer.loaded) == {n for n in source.backbone.state_dict() if not n.endswith("num_batches_tracked")}
    assert all(name.startswith(("layer1.2", "layer2.", "layer3.", "layer4.2")) for name in transfer.new)
    assert "layer3.5.conv2.weight" in transfer.new


def test_other_widths_are_skipped_and_new(tmp_path: Path) -> None:
    classifier(tmp_path / "a.pt")
    target = retinanet(width=16)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"a\.pt: nothing of its backbone \(resnet\) fits this one"):
        load_backbone_from(target, tmp_path / "a.pt")
    for name, tensor in target.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_the_moving_average_is_preferred(tmp_path: Path) -> None:
    classifier(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    state["ema"] = {name: torch.full_like(tensor, 3) for name, tensor in state["model"].items()}
    torch.save(state, tmp_path / "a.pt")
    target = retinanet()
    load_backbone_from(target, tmp_path / "a.pt")
    assert (target.backbone.conv1.weight == 3).all()


BOTNET = {"name": "botnet", "depth": 50, "width": 8, "num_heads": 2}


def test_tables_of_positions_are_interpolated(tmp_path: Path) -> None:
    source = classifier(tmp_path / "a.pt", **{**BOTNET, "image_size": 64})
    target = retinanet(**{**BOTNET, "image_size": 128})
    transfer = load_backbone_from(target, tmp_path / "a.pt")
    assert (*transfer.skipped, *transfer.new) == ()
    assert len(transfer.interpolated) == 6
    lines = report_transfer(transfer, read_backbone_weights(tmp_path / "a.pt"), target)
    assert lines[-1] == (
        "note: 6 tables of positions, made for inputs of 64 pixels, are interpolated to 128: "
        "--backbone.image_size 64 keeps them"
    )
    state, weights = target.backbone.state_dict(), source.backbone.state_dict()
    longer = [name for name, tensor in weights.items() if tensor.shape != state[name].shape]
    assert len(longer) == 6
    for name in longer:
        assert len(state[name]) == 2 * len(weights[name]) + 1
        # Distance 0, and the farthest, mean what they meant.
        for index in (0, len(weights[name]) // 2, -1):
            there = {0: 0, -1: -1}.get(index, len(state[name]) // 2)
            torch.testing.assert_close(state[name][there], weights[name][index])


def test_a_resnet_begins_a_botnet_up_to_its_attention(tmp_path: Path) -> None:
    """Weights learned behind a convolution are not loaded behind attention: blocks start as their shortcuts."""
    source, target = classifier(tmp_path / "a.pt", depth=50).eval(), retinanet(**BOTNET).eval()
    transfer = load_backbone_from(target, tmp_path / "a.pt")
    skipped = ("conv2", "bn2", "conv3", "bn3")
    assert {tuple(name.split(".")[:3]) for name in transfer.skipped} == {
        ("layer4", str(i), child) for i in range(3) for child in skipped
    }
    assert all(name.split(".")[0] == "layer4" and name.split(".")[2] in skipped for name in transfer.new)
    images = torch.rand(1, 3, 64, 96)
    c4, ours = source.backbone.stage("c4", _c3(source, images)), target.backbone(images)
    torch.testing.assert_close(ours["c4"], c4, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["c5"], source.backbone.layer4[0].downsample(c4).relu(), rtol=1e-5, atol=1e-5)


def _c3(detector: Detector, images: torch.Tensor) -> torch.Tensor:
    body = detector.backbone
    x = torch.nn.functional.max_pool2d(body.bn1(body.conv1(images)).relu(), 3, 2, 1)
    return body.stage("c3", body.stage("c2", x))


@pytest.mark.parametrize(
    ("source", "target", "untouched"),
    [
        ({"depth": 18}, {"depth": 50}, ["layer2.1.conv2.weight", "layer2.1.bn2.running_mean", "layer1.0.conv1.weight"]),
        (BOTNET, {**BOTNET, "num_heads": 4}, ["layer4.1.conv2.project.weight", "layer4.1.bn2.weight"]),
        (BOTNET, {**BOTNET, "positions": "absolute"}, ["layer4.1.conv2.project.weight"]),
        (
            {"name": "rfp", "atrous": "switchable", "out_channels": 16},
            {"name": "rfp", "out_channels": 16},
            ["bodies.0.layer3.1.conv1.weight", "bodies.1.layer2.0.bn1.weight"],
        ),
    ],
    ids=["blocks", "heads", "positions", "convolutions"],
)
def test_layers_of_another_kind_are_not_half_loaded(
    tmp_path: Path, source: dict[str, Any], target: dict[str, Any], untouched: list[str]
) -> None:
    classifier(tmp_path / "a.pt", **source)
    ours = retinanet(**target)
    before = {name: tensor.clone() for name, tensor in ours.backbone.state_dict().items()}
    transfer = load_backbone_from(ours, tmp_path / "a.pt")
    after = ours.backbone.state_dict()
    assert set(untouched) <= set(transfer.new)
    assert transfer.loaded
    for name in transfer.new:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_only_the_stem_of_another_kind_of_resnet_is_loaded(tmp_path: Path) -> None:
    classifier(tmp_path / "a.pt")
    transfer = load_backbone_from(retinanet(depth=50), tmp_path / "a.pt")
    assert set(transfer.loaded) == {
        "conv1.weight",
        *(f"bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }


def test_frozen_layers_must_be_in_the_source(tmp_path: Path) -> None:
    classifier(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: \d+ tensors that the recipe freezes .*frozen_stages 0"):
        load_backbone_from(retinanet(depth=50, frozen_stages=2), tmp_path / "a.pt")
    assert load_backbone_from(retinanet(depth=50, frozen_stages=1), tmp_path / "a.pt").loaded


@pytest.mark.parametrize("atrous", ["none", "switchable"])
def test_a_resnet_begins_every_resnet_of_a_recursive_pyramid(tmp_path: Path, atrous: str) -> None:
    source = classifier(tmp_path / "a.pt")
    target = retinanet(name="rfp", atrous=atrous, out_channels=16)
    transfer = load_backbone_from(target, tmp_path / "a.pt")
    assert not transfer.skipped
    weights, state = source.backbone.state_dict(), target.backbone.state_dict()
    for name, tensor in weights.items():
        for i in range(2):
            torch.testing.assert_close(state[f"bodies.{i}.{name}"], tensor, rtol=0, atol=0)
    assert "bodies.1.layer4.1.conv2.weight" in transfer.loaded
    assert "fusion.weight" in transfer.new
    images = torch.rand(1, 3, 64, 96)
    if atrous == "none":
        ours, theirs = (d.eval().backbone.bodies[0] if d is target else d.eval().backbone for d in (target, source))
        torch.testing.assert_close(ours(images)["c5"], theirs(images)["c5"], rtol=1e-5, atol=1e-5)
    target.save(tmp_path / "b.pt")
    again = retinanet(name="rfp", atrous=atrous, out_channels=16)
    assert load_backbone_from(again, tmp_path / "b.pt").new == ()
    for name, tensor in again.backbone.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
