"""DETR of its authors: files in their names, of transformers' model, which has the same mathematics."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50, resnet101
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

import boxwright
from boxwright.passport import Origin
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.recognize import recognize
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.detr import AuthorsDETR
from weights.compared import Recorder, name_version
from weights.released import find_file, read_image
from weights.released_values import DETR_R50, assert_values
from weights.source_checks import Differences
from weights.transformers_models import assert_equal_detections, calibrate

RENAMES = [
    (r"^model\.backbone\.model\.embedder\.embedder\.convolution\.", "backbone.0.body.conv1."),
    (r"^model\.backbone\.model\.embedder\.embedder\.normalization\.", "backbone.0.body.bn1."),
    (r"^model\.backbone\.model\.encoder\.stages\.", "backbone.0.body.layer"),
    (r"layer(\d)\.layers\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"^model\.(encoder|decoder)\.", r"transformer.\1."),
    (r"\.layernorm\.", ".norm."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"(encoder.*)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder.*)\.final_layer_norm\.", r"\1.norm3."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.mlp\.fc", ".linear"),
    (r"\.encoder_attn\.", ".multihead_attn."),
    (r"^model\.query_position_embeddings\.", "query_embed."),
    (r"^model\.input_projection\.", "input_proj."),
    (r"^class_labels_classifier\.", "class_embed."),
    (r"^bbox_predictor\.", "bbox_embed."),
]


def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names for those that transformers has in memory, as its conversion script of 2020 reads them."""
    theirs, parts = {}, {}
    for name, tensor in tensors.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        joint = re.fullmatch(r"(.*)([qkv])_proj\.(weight|bias)", name)
        if joint:
            parts.setdefault(f"{joint[1]}in_proj_{joint[3]}", {})[joint[2]] = tensor
        else:
            theirs[name] = tensor
    return theirs | {name: torch.cat([part[letter] for letter in "qkv"]) for name, part in parts.items()}


PROJECT = f"{name_version('transformers')} under the authors' names"

ARGUMENTS = {"nheads": 2, "dilation": False, "dropout": 0.2, "pre_norm": False, "lr": 1e-4, "dataset_file": "coco"}


@pytest.fixture(scope="module")
def reference() -> Any:
    """A small model of transformers with 91 labels."""
    torch.manual_seed(0)
    backbone = ResNetConfig(
        depths=[3, 4, 6, 3], hidden_sizes=[32, 64, 128, 256], embedding_size=8, out_features=["stage4"]
    )
    layers = {"encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = DetrConfig(backbone_config=backbone, d_model=32, num_queries=20, num_labels=91, **layers, **heads)
    model = DetrForObjectDetection(config).eval()
    calibrate(model)
    return model


def read(path: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(path), {"input.image_size": 96, "input.max_size": 144, **overrides})


def compare(weights: ModelWeights, model: Any) -> Differences:
    """Compare at transformers' sizes: the authors' own are those of our default rule, tested with the rules."""
    processor = DetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 144})
    return assert_equal_detections(build_model(weights), model, processor)


def test_a_run_of_its_authors(reference: Any, tmp_path: Path, record_comparison: Recorder) -> None:
    content = {
        "model": rename(reference.state_dict()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 7,
        "args": argparse.Namespace(**ARGUMENTS),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    weights = read(tmp_path / "checkpoint.pth", **{"input.size_rule": "transformers"})
    assert weights.skipped == {}
    assert [note.partition(" of ")[0] for note in read(tmp_path / "checkpoint.pth").notes[:2]] == [
        "the preprocessing",
        "labels were assumed to be COCO's category ids,",
    ]
    assert weights.recipe.head.options["decoder"].dropout == 0.2
    assert (weights.categories[17].name, weights.categories[12].name) == ("cat", "N/A")
    assert read(tmp_path / "checkpoint.pth").recipe.input.size_rule == "detr"
    record_comparison("detr", "r50", PROJECT, compare(weights, reference), inputs=weights.recipe.input)


def test_weights_alone_say_what_is_assumed(reference: Any, tmp_path: Path) -> None:
    torch.save({"model": rename(reference.state_dict())}, tmp_path / "detr.pth")
    notes = read(tmp_path / "detr.pth").notes
    assert notes[0].startswith("8 attention heads were assumed; neck.num_heads and head.decoder.num_heads")
    assert notes[1] == "no dilation (DC5) was assumed; backbone.dilation says otherwise"
    heads = {"neck.num_heads": 2, "head.decoder.num_heads": 2, "input.size_rule": "transformers"}
    compare(read(tmp_path / "detr.pth", **heads), reference)


def test_a_panoptic_file_gives_its_boxes(reference: Any, tmp_path: Path, record_comparison: Recorder) -> None:
    tensors = {f"detr.{name}": tensor for name, tensor in rename(reference.state_dict()).items()}
    masks = {"mask_head.lay1.weight": torch.zeros(2, 2), "bbox_attention.q_linear.bias": torch.zeros(2)}
    content = {"model": {**tensors, **masks}, "args": argparse.Namespace(**ARGUMENTS)}
    torch.save(content, tmp_path / "panoptic.pth")
    weights = read(tmp_path / "panoptic.pth", **{"input.size_rule": "transformers"})
    assert set(weights.skipped) == set(masks)
    assert "a model for panoptic segmentation: its boxes and classes are read, its masks are not" in weights.notes
    largest = compare(weights, reference)
    record_comparison("detr", "r50, panoptic", PROJECT, largest, inputs=weights.recipe.input)


class Layers(nn.Module):
    """Layers whose tensors have the names of the authors' transformer."""

    def __init__(self, layer: type[nn.Module], count: int, norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(256, 8, 2048) for _ in range(count))
        if norm:
            self.norm = nn.LayerNorm(256)


class Released(nn.Module):
    """Tensors of a released model, by name and shape."""

    def __init__(self, resnet: Any, num_classes: int = 91, num_queries: int = 100, pre_norm: bool = False) -> None:
        super().__init__()
        body = IntermediateLayerGetter(resnet(norm_layer=FrozenBatchNorm2d), {"layer4": "0"})
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": body})])
        channels = 512 if resnet is resnet18 else 2048
        self.input_proj = nn.Conv2d(channels, 256, 1)
        self.transformer = nn.ModuleDict(
            {
                "encoder": Layers(nn.TransformerEncoderLayer, 6, pre_norm),
                "decoder": Layers(nn.TransformerDecoderLayer, 6, True),
            }
        )
        self.query_embed = nn.Embedding(num_queries, 256)
        self.class_embed = nn.Linear(256, num_classes + 1)
        sizes = ((256, 256), (256, 256), (256, 4))
        self.bbox_embed = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(*size) for size in sizes)})


def describe(model: nn.Module, sha256: str | None = None, source: str = "detr.pth") -> ModelWeights:
    origin = Origin(source=source, kind="", sha256=sha256)
    return convert_files(SourceFiles(origin=origin, tensors=model.state_dict()))


@pytest.mark.parametrize(
    ("resnet", "sha256", "recipe", "count"),
    [
        (resnet50, "e632da11" + "0" * 56, "detr_r50", 458),
        (resnet50, "f0fb7ef5" + "0" * 56, "detr_r50_dc5", 458),
        pytest.param(resnet101, "2c7b67e5" + "0" * 56, "detr_r101", 713, marks=pytest.mark.slow),
        pytest.param(resnet101, "a2e86def" + "0" * 56, "detr_r101_dc5", 713, marks=pytest.mark.slow),
    ],
)
def test_names_and_shapes_of_released_files(resnet: Any, sha256: str, recipe: str, count: int) -> None:
    with torch.device("meta"):
        model = Released(resnet)
    assert len(model.state_dict()) == count
    weights, expected = describe(model, sha256), boxwright.compose.recipes.resolve(recipe).recipe
    assert weights.skipped == {}
    assert weights.notes == ()
    parts = ("backbone", "necks", "head", "input")
    assert [getattr(weights.recipe, part) for part in parts] == [getattr(expected, part) for part in parts]


def test_a_name_with_dc5_is_dilated_and_says_so() -> None:
    with torch.device("meta"):
        model = Released(resnet50)
    weights = describe(model, "0" * 64, "runs/detr-r50-dc5.pth")
    assert weights.recipe.backbone.options["dilation"] == "after_first"
    assert "dilation (DC5), for dc5 in its name, was assumed; backbone.dilation says otherwise" in weights.notes


@pytest.mark.parametrize(
    ("queries", "classes", "side", "last"), [(15, 2, 800, "table rotated"), (125, 6, 1000, "table spanning cell")]
)
def test_table_transformer_of_its_authors(queries: int, classes: int, side: int, last: str) -> None:
    with torch.device("meta"):
        model = Released(resnet18, classes, queries, pre_norm=True)
    weights = describe(model)
    expected = boxwright.compose.recipes.resolve("table_transformer", {"head.num_queries": queries}).recipe
    assert (weights.recipe.necks, weights.recipe.head) == (expected.necks, expected.head)
    assert (weights.recipe.input.image_size, weights.recipe.input.max_size) == (side, side)
    assert weights.recipe.input.size_rule == "mmcv"
    assert weights.categories[-1].name == last
    assert any(note.startswith(f"images of {side} pixels were assumed") for note in weights.notes)


def test_variants_without_a_counterpart() -> None:
    with torch.device("meta"):
        model = Released(resnet50)
    origin, state = Origin(source="detr.pth", kind=""), model.state_dict()
    state["transformer.decoder.layers.0.ca_qcontent_proj.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="Conditional DETR, whose attentions Boxwright does not have"):
        convert_files(SourceFiles(origin=origin, tensors=state))
    state = {name: tensor for name, tensor in model.state_dict().items() if ".layer3.5." not in name}
    with pytest.raises(ValueError, match="stages of 3, 4, 5, 3 bottlenecks, and is no ResNet of depth 18, 34, 50"):
        convert_files(SourceFiles(origin=origin, tensors=state))


@pytest.mark.parametrize("options", [{}, {"backbone.depth": 18, "neck.pre_norm": True, "head.decoder.pre_norm": True}])
def test_what_we_write_reads_back(options: dict[str, Any], tmp_path: Path) -> None:
    small = {"neck.hidden_dim": 32, "head.hidden_dim": 32, "neck.num_layers": 1, "head.decoder.num_layers": 2}
    heads = {"neck.num_heads": 8, "neck.feedforward_dim": 40, "head.decoder.feedforward_dim": 48}
    detector = boxwright.build("detr_r50", num_classes=5, overrides={"backbone.width": 8, **small, **heads, **options})
    layout = AuthorsDETR().write(detector)
    assert layout.wrap == ("model",)
    assert layout.tensors["transformer.decoder.layers.1.multihead_attn.in_proj_weight"].shape == (96, 32)
    torch.save({"model": dict(layout.tensors)}, tmp_path / layout.file_name)
    weights = read(tmp_path / layout.file_name)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(weights.tensors[name], tensor), name


def test_the_name_of_a_dilated_file_says_so() -> None:
    with torch.device("meta"):
        detector = boxwright.build("detr_r101_dc5", num_classes=91)
    layout = AuthorsDETR().write(detector)
    assert layout.file_name == "detr-r101-dc5.pth"
    with torch.device("meta"):
        assert set(layout.tensors) == set(Released(resnet101).state_dict())


def test_other_detectors_are_not_written() -> None:
    with torch.device("meta"):
        detector = boxwright.build("retinanet_r18_fpn", num_classes=2)
    with pytest.raises(ValueError, match="not a DETR with a ResNet and one encoder, but resnet > fpn > retinanet"):
        AuthorsDETR().write(detector)


def test_the_kind_is_recognized_alone() -> None:
    with torch.device("meta"):
        files = SourceFiles(origin=Origin(source="a.pth", kind=""), tensors=Released(resnet18).state_dict())
    assert recognize(files)[0] == "detr"


def test_golden_values_of_the_released_r50() -> None:
    """Published by transformers' tests, which are of this file."""
    path, image = find_file("https://dl.fbaipublicfiles.com/detr/detr-r50-e632da11.pth"), read_image()
    detector = build_model(convert_files(read_source_files(path)))
    result = detector.predict(image)[:5]
    assert result.labels.tolist() == [17, 17, 75, 75, 63]
    torch.testing.assert_close(result.scores, torch.tensor([0.9988, 0.9987, 0.9982, 0.9960, 0.9955]), rtol=0, atol=2e-4)
    box = torch.tensor([40.1633, 70.8115, 175.5471, 117.9841])
    torch.testing.assert_close(result.boxes[2], box, rtol=0, atol=0.05)
    assert_values(detector, DetrImageProcessor()(images=image, return_tensors="pt")["pixel_values"], DETR_R50)
