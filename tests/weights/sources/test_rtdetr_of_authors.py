"""Files of RT-DETR's authors: names and shapes of their code, files of ours in their layout, what no tensor tells."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import RTDetrImageProcessor

import boxwright
from boxwright.backbones.timm import Timm
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.passport import Origin
from boxwright.structures import Category
from boxwright.training.optimizer import make_optimizer
from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.projects.rtdetr_names import make_table
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.rtdetr import AuthorsRTDETR
from boxwright.weights.sources.rtdetr_backbone import RTDETRBackbone
from boxwright.weights.sources.rtdetrv2 import AuthorsRTDETRv2
from weights.released import find_file, read_image
from weights.released_values import RTDETR, assert_values

SMALL = {
    "backbone.width": 8,
    "neck.hidden_dim": 32,
    "neck.feedforward_dim": 48,
    "head.hidden_dim": 32,
    "head.decoder.feedforward_dim": 48,
    "image_size": 96,
}


def make_meta(recipe: str) -> Detector:
    with torch.device("meta"):
        return build_resolved(resolve(recipe).recipe, categories=[Category(i, str(i)) for i in range(80)])


def save(detector: Detector, path: Path, *, version: int) -> Path:
    layout = (AuthorsRTDETR() if version == 1 else AuthorsRTDETRv2()).write(detector)
    content: dict[str, Any] = dict(layout.tensors)
    for key in reversed(layout.wrap):
        content = {key: content}
    # A training checkpoint has the weights without average beside it.
    torch.save({"model": {"backbone.weight": torch.zeros(1)}, "last_epoch": 3, **content}, path)
    return path


@pytest.mark.parametrize(
    ("recipe", "count", "digest"),
    [
        ("rtdetr_r18", 533, "d276f8c2e43f4119"),
        ("rtdetr_r34", 659, "c4ca31c65187e955"),
        ("rtdetr_r50_m", 760, "72779c949f83e0d0"),
        ("rtdetr_r50", 736, "d9b0e667007c24e2"),
        ("rtdetr_r101", 991, "d2873aec17736e4e"),
        ("rtdetrv2_r18", 538, "5d597f9625fff218"),
        ("rtdetrv2_r34", 665, "284d0f8ba9865501"),
        ("rtdetrv2_r50_m", 768, "abd50cc1fec2d3a8"),
        ("rtdetrv2_r50", 744, "3e8d1889088eab9c"),
        ("rtdetrv2_r101", 999, "6a9974bc7ba3b60b"),
        ("rtdetrv2_l", 869, "9134d03d7bc959a3"),
        ("rtdetrv2_x", 1119, "a5506bc6bca8c643"),
        ("rtdetrv2_h", 1351, "3395ed88a7d5d22f"),
        ("deim_rtdetrv2_r18", 540, "729f710e0f9eb6e7"),
        ("deim_rtdetrv2_r34", 667, "369ef492e1daf0fe"),
        ("deim_rtdetrv2_r50_m", 732, "67893a2580d1f146"),
        ("deim_rtdetrv2_r50", 801, "f38ee41e6e224892"),
        ("deim_rtdetrv2_r101", 1107, "dbf85a442a0469ce"),
    ],
)
def test_names_and_shapes_are_those_of_the_authors_models(recipe: str, count: int, digest: str) -> None:
    """Digests of names and shapes in the state of the models that lyuwenyu/RT-DETR 068dfde, DEIM a9aa4ad build."""
    source = AuthorsRTDETRv2() if "rtdetrv2" in recipe else AuthorsRTDETR()
    tensors = source.write(make_meta(recipe)).tensors
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == (count, digest)


@pytest.mark.parametrize(
    ("recipe", "version"),
    [("rtdetr_r18", 1), ("rtdetr_r18", 2), ("rtdetr_r50_m", 1), ("rtdetr_r50_m", 2), ("deim_rtdetrv2_r18", 2)],
)
def test_what_is_written_is_read_again(version: int, recipe: str, tmp_path: Path) -> None:
    points = {"head.decoder.num_points": [3, 4, 2], "head.decoder.num_heads": 4} if version == 2 else {}
    detector = boxwright.build(recipe, num_classes=80, overrides={**SMALL, **points}).eval()
    files = read_source_files(save(detector, tmp_path / "a.pth", version=version))
    weights = convert_files(files, {} if version == 2 else {"image_size": 96})
    assert weights.origin.kind == ("rtdetr" if version == 1 else "rtdetrv2")
    assert set(weights.skipped.values()) == (
        {"computed from the size of the input", "the numbers of points, which are options here"}
        if version == 2
        else set()
    )
    ours, state = build_model(weights), detector.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    assert [category.name for category in weights.categories][:3] == ["person", "bicycle", "car"]
    assert ours.head.eval_layers == 3
    is_deim = recipe.startswith("deim")
    assert is_deim == any(note.startswith("SiLU in its decoder") for note in weights.notes)
    assert weights.recipe.head.options["supervision"].class_loss == ("mal" if is_deim else "varifocal")
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, detector(images).logits, rtol=0, atol=0)


def test_what_no_tensor_tells_is_said(tmp_path: Path) -> None:
    detector = boxwright.build("rtdetr_r50_m", num_classes=5, overrides=SMALL)
    notes = convert_files(read_source_files(save(detector, tmp_path / "a.pth", version=1))).notes
    assert [note.partition(" (")[0] for note in notes] == [
        "3 of its 6 decoder layers predict, as the authors' do",
        "8 attention heads",
        "inputs of 640 pixels",
        "the names of its 5 classes are not in the file: they are called class_0 and so on",
    ]
    options = {}
    for name in ("rtdetrv2_r18vd_dsp_3x_coco.pth", "rtdetrv2_r18vd_120e_coco.pth"):
        weights = convert_files(read_source_files(save(detector, tmp_path / name, version=2)))
        options[name] = weights.recipe.head.options["decoder"].sampling_method
        assert weights.recipe.input.image_size == 96
        assert any("sampling" in note and "head.decoder.sampling_method" in note for note in weights.notes)
    assert list(options.values()) == ["discrete", "default"]
    weights = convert_files(
        read_source_files(tmp_path / "a.pth"), {"head.eval_layers": 6, "head.decoder.sampling_method": "discrete"}
    )
    assert build_model(weights).head.eval_layers == 6


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        (
            1,
            {"head.decoder.num_points": [4, 4, 2]},
            r"head.decoder.num_points is \[4, 4, 2\], and has to be one number",
        ),
        (
            1,
            {"head.decoder.sampling_method": "discrete"},
            "head.decoder.sampling_method is discrete, and has to be def",
        ),
        (2, {"head.decoder.offset_scale": 0.7}, "head.decoder.offset_scale is 0.7, and has to be 0.5 there"),
        (2, {"neck.variant": "C"}, "neck.variant is C, and has to be E there"),
        (2, {"head.decoder.activation": "silu"}, "head.decoder.activation is silu, and has to be relu there"),
        (2, {"head.decoder.reference_encoding": "deep"}, "head.decoder.activation is relu, and has to be silu there"),
        (
            1,
            {"head.decoder.activation": "silu", "head.decoder.reference_encoding": "deep"},
            "head.decoder.reference_encoding is deep, and has to be wide there",
        ),
    ],
)
def test_what_they_do_not_have_is_not_written(
    version: int, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save(
            boxwright.build("rtdetr_r18", num_classes=2, overrides={**SMALL, **options}),
            tmp_path / "a.pth",
            version=version,
        )


def test_a_model_without_denoising(tmp_path: Path) -> None:
    detector = boxwright.build("rtdetr_r18", num_classes=2, overrides={**SMALL, "head.denoising.num_queries": 0})
    path = save(detector, tmp_path / "a.pth", version=1)
    assert "decoder.denoising_class_embed.weight" not in read_source_files(path).tensors
    weights = convert_files(read_source_files(path))
    assert weights.recipe.head.options["denoising"].num_queries == 0
    assert "head.denoising_classes.weight" not in weights.tensors


@pytest.mark.parametrize("recipe", ["rtdetr_l", "rtdetrv2_l"])
def test_an_hgnet_that_is_written_is_read_again(recipe: str, tmp_path: Path) -> None:
    small = {name: value for name, value in SMALL.items() if not name.startswith("backbone")}
    detector = boxwright.build(recipe, num_classes=80, overrides=small).eval()
    path = save(detector, tmp_path / "a.pth", version=2 if recipe.startswith("rtdetrv2") else 1)
    weights = convert_files(read_source_files(path), {"image_size": 96})
    assert weights.recipe.backbone.options["model"] == "hgnetv2_b4"
    ours, state = build_model(weights), detector.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_the_backbone_of_an_hgnet() -> None:
    backbone = Timm(model="hgnetv2_b4")
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    their_names = {ours: theirs for theirs, ours in names_of(state).items()}
    tensors = {their_names[name].removeprefix("backbone."): tensor for name, tensor in state.items()}
    files = SourceFiles(origin=Origin(source="PPHGNetV2_L_ssld_pretrained_from_paddle.pth", kind=""), tensors=tensors)
    source = RTDETRBackbone()
    assert source.recognizes(files)
    model = source.describe_backbone(files)
    assert model.part == {"name": "timm", "model": "hgnetv2_b4"}
    converted = model.table.read(tensors, backbone.state_dict())
    assert all(torch.equal(converted.tensors[name], tensor) for name, tensor in backbone.state_dict().items())
    del tensors["stages.2.blocks.2.aggregation_squeeze_conv.conv.weight"]
    with pytest.raises(ValueError, match="has 1, 1, 2, 1 blocks per stage, and is no HGNetv2 of size L, X, H"):
        source.describe_backbone(SourceFiles(origin=Origin(source="a.pth", kind=""), tensors=tensors))


@pytest.mark.parametrize("depth", [18, 50])
def test_backbones(depth: int) -> None:
    backbone = boxwright.build(f"rtdetr_r{depth}", num_classes=2, overrides=SMALL).backbone
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    their_names = {ours: theirs for theirs, ours in names_of(state).items()}
    tensors = {their_names[name].removeprefix("backbone."): tensor for name, tensor in state.items()}
    files = SourceFiles(origin=Origin(source="ResNet.pth", kind=""), tensors=tensors)
    source = RTDETRBackbone()
    assert source.recognizes(files)
    assert not AuthorsRTDETR().recognizes(files)
    model = source.describe_backbone(files)
    assert model.part == {"name": "resnet_vd", "depth": depth, "width": 8}
    converted = model.table.read(tensors, backbone.state_dict())
    assert all(torch.equal(converted.tensors[name], tensor) for name, tensor in backbone.state_dict().items())


def names_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the authors' names to ours."""
    table = make_table(2)
    return {next(iter(table.write({name: tensor}).tensors)): name for name, tensor in tensors.items()}


GROUPS: dict[str, list[tuple[str, float, float]]] = {
    "rtdetrv2_r18": [(r"^(?=.*(?:norm|bn)).*$", 1e-4, 0.0)],
    "rtdetrv2_r34": [
        (r"^(?=.*backbone)(?!.*norm|bn).*$", 5e-5, 1e-4),
        (r"^(?=.*backbone)(?=.*norm|bn).*$", 5e-5, 0.0),
        (r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn|bias)).*$", 1e-4, 0.0),
    ],
    "rtdetrv2_r50": [
        (r"^(?=.*backbone)(?!.*norm).*$", 1e-5, 1e-4),
        (r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$", 1e-4, 0.0),
    ],
}
GROUPS["rtdetrv2_r50_m"] = GROUPS["rtdetrv2_r50"]
for size, rate in {"l": 5e-6, "x": 1e-6, "h": 5e-6}.items():
    GROUPS[f"rtdetrv2_{size}"] = [(r"^(?=.*backbone)(?!.*norm|bn).*$", rate, 1e-4), GROUPS["rtdetrv2_r50"][1]]
for size, rate in {"r18": 2e-4, "r34": 1e-4, "r50_m": 2e-5, "r50": 2e-5, "r101": 2e-6}.items():
    GROUPS[f"deim_rtdetrv2_{size}"] = [
        (r"^(?=.*backbone)(?!.*norm).*$", rate, 1e-4),
        (r"^(?=.*(?:norm|bn)).*$", 2e-4, 0.0),
    ]
GROUPS["rtdetrv2_r101"] = [(r"^(?=.*backbone)(?!.*norm|bn).*$", 1e-6, 1e-4), GROUPS["rtdetrv2_r50"][1]]


@pytest.mark.parametrize("recipe", GROUPS)
def test_rates_and_decay_of_every_parameter_are_those_of_the_published_configuration(recipe: str) -> None:
    detector, train = make_meta(recipe), resolve(recipe).recipe.train
    assert isinstance(train, TrainOptions)
    actual = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in make_optimizer(detector, train).param_groups
        for parameter in group["params"]
    }
    parameters = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    for theirs, ours in names_of(parameters).items():
        groups = [(lr, decay) for pattern, lr, decay in GROUPS[recipe] if re.search(pattern, theirs)]
        assert len(groups) <= 1, theirs
        rate, decay = (groups or [(2e-4 if recipe.startswith("deim") else 1e-4, 1e-4)])[0]
        assert actual[id(parameters[ours])] == (pytest.approx(rate, rel=1e-12), decay), theirs


@pytest.mark.parametrize("name", RTDETR)
def test_golden_values_of_released_files(name: str) -> None:
    """Values are of the last layer, where the authors' R50-m stops at the third."""
    path, image = find_file(RTDETR[name].url), read_image()
    overrides = {"head.eval_layers": None} if name.endswith("_m") else {}
    detector = build_model(convert_files(read_source_files(path), overrides))
    pixels = RTDetrImageProcessor()(images=image, return_tensors="pt")["pixel_values"]
    assert_values(detector, pixels, RTDETR[name].values, box_tolerance=1e-4)
