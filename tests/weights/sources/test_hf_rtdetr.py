"""RT-DETR and RT-DETRv2 of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrV2ForObjectDetection,
)

import boxwright
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.files import read_source_files
from boxwright.weights.labels import canonical_name
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.sources.hf_rtdetr import HuggingFaceRTDETR
from weights.compared import Recorder, name_version
from weights.released import find_hub_folder, read_image
from weights.released_values import RTDETR, assert_values
from weights.rtdetr_models import calibrate, make_config
from weights.source_checks import SHAPES
from weights.transformers_models import assert_equal_detections, compare_written

SMALL = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "decoder_layers": 3,
    "decoder_in_channels": [32, 32, 32],
    "num_queries": 20,
    "num_labels": 6,
}
SIDE = 96
KINDS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "r18": (1, 18, {"freeze_backbone_batch_norms": False, "hidden_expansion": 0.5}),
    "r50, wide encoder": (
        1,
        50,
        {"encoder_hidden_dim": 48, "decoder_in_channels": [48] * 3, "decoder_layers": 2, "num_denoising": 0},
    ),
    "v2 r18": (2, 18, {"hidden_expansion": 0.5, "decoder_n_points": 3, "decoder_offset_scale": 0.7}),
    "v2 r18, discrete": (2, 18, {"decoder_method": "discrete", "encoder_layers": 2}),
}


def make(kind: str) -> Any:
    """A small model of each kind, calibrated."""
    version, depth, options = KINDS[kind]
    torch.manual_seed(0)
    config = make_config(version, depth, **{**SMALL, **options})
    model = (RTDetrForObjectDetection if version == 1 else RTDetrV2ForObjectDetection)(config)
    calibrate(model)
    return model.eval()


def make_processor(side: int = SIDE) -> RTDetrImageProcessor:
    return RTDetrImageProcessor(size={"height": side, "width": side})


def read(folder: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(folder), overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_of_what_save_pretrained_writes(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model, processor = make(kind), make_processor()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = read(tmp_path)
    points = {name for name in load_file(tmp_path / "model.safetensors") if name.endswith("n_points_scale")}
    assert {name for name in weights.skipped if "num_batches" not in name} == points
    assert bool(points) == kind.startswith("v2")
    assert weights.recipe.head.options["decoder"].eval_layers is None
    largest = assert_equal_detections(build_model(weights), model, processor)
    record_comparison("hf_rtdetr", kind, name_version("transformers"), largest, inputs=weights.recipe.input)


def write_folder(detector: Detector, folder: Path) -> dict[str, Any]:
    layout = HuggingFaceRTDETR().write(detector)
    save_file({name: tensor.contiguous() for name, tensor in layout.tensors.items()}, folder / layout.file_name)
    for name, content in layout.files.items():
        (folder / name).write_text(json.dumps(content))
    return dict(layout.files["config.json"])


@pytest.mark.parametrize("kind", KINDS)
def test_ours_written_in_their_layout_is_theirs(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model = make(kind)
    (tmp_path / "theirs").mkdir()
    model.save_pretrained(tmp_path / "theirs")
    ours = build_model(read(tmp_path / "theirs", image_size=SIDE))
    (tmp_path / "ours").mkdir()
    layout = HuggingFaceRTDETR().write(ours)
    is_version_2 = layout.files["config.json"]["model_type"] == "rt_detr_v2"
    assert is_version_2 == kind.startswith("v2")
    kind_of = RTDetrV2ForObjectDetection if is_version_2 else RTDetrForObjectDetection
    largest = compare_written(layout, ours, kind_of, RTDetrImageProcessor, tmp_path / "ours")
    project, note = name_version("transformers"), "in double precision"
    record_comparison("hf_rtdetr", f"{kind}, written", project, largest, images=SHAPES[:1], note=note)


def test_a_detector_of_a_recipe_of_version_2_is_written_as_version_2(tmp_path: Path) -> None:
    sizes = {"backbone.width": 8, "neck.hidden_dim": 16, "head.hidden_dim": 16, "image_size": 64}
    assert (
        write_folder(boxwright.build("rtdetr_r18", num_classes=2, overrides=sizes), tmp_path)["model_type"] == "rt_detr"
    )
    config = write_folder(boxwright.build("rtdetrv2_r18", num_classes=2, overrides=sizes), tmp_path)
    assert config["architectures"] == ["RTDetrV2ForObjectDetection"]
    assert sum(name.endswith("n_points_scale") for name in load_file(tmp_path / "model.safetensors")) == 3


def test_only_layers_that_predict_are_written(tmp_path: Path) -> None:
    sizes = {"backbone.width": 8, "neck.hidden_dim": 16, "head.hidden_dim": 16, "image_size": 64}
    detector = boxwright.build("rtdetr_r50_m", num_classes=2, overrides=sizes)
    config = write_folder(detector, tmp_path)
    assert config["decoder_layers"] == 3
    written = load_file(tmp_path / "model.safetensors")
    assert {name.split(".")[3] for name in written if name.startswith("model.decoder.layers.")} == {"0", "1", "2"}
    assert read(tmp_path).recipe.head.options["decoder"].num_layers == 3


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "faster_rcnn_r18_fpn",
            {},
            "not an RT-DETR with a ResNet-vd and its hybrid encoder, but resnet > fpn > faster",
        ),
        ("rtdetr_r18", {"neck.num_blocks": 1}, "neck.num_blocks is 1, and has to be 3 there"),
        (
            "rtdetr_r18",
            {"neck.num_blocks": 1, "head.decoder.num_points": [4, 4, 2]},
            r"neck.num_blocks is 1, and has to be 3 there; head.decoder.num_points is \[4, 4, 2\], and has to be",
        ),
        ("rtdetr_r18", {"neck.variant": "D"}, "neck.variant is D, and has to be E there"),
        (
            "deim_rtdetrv2_r18",
            {},
            "head.decoder.activation is silu, and has to be relu there; head.decoder.reference_enc",
        ),
        (
            "rtdetr_r18",
            {"head.decoder.num_points": [4, 4, 2]},
            r"head.decoder.num_points is \[4, 4, 2\], and has to be",
        ),
    ],
)
def test_what_they_do_not_have_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    detector = boxwright.build(recipe, num_classes=2, overrides=overrides)
    with pytest.raises(ValueError, match=message):
        HuggingFaceRTDETR().write(detector)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learn_initial_query": True}, "its learn_initial_query is True; Boxwright's RT-DETR has False"),
        ({"encode_proj_layers": [1, 2]}, r"its encode_proj_layers is \[1, 2\]; Boxwright's RT-DETR has \[2\]"),
        (
            {"backbone_config": {"model_type": "hgnet_v2"}},
            "its model_type is hgnet_v2; Boxwright's RT-DETR has rt_detr_",
        ),
        ({"backbone": "resnet50d"}, "its backbone is resnet50d of timm; Boxwright's RT-DETR has transformers' own"),
    ],
)
def test_variants_without_counterpart_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    make("r18").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_older_files_and_files_without_configuration(tmp_path: Path) -> None:
    make("v2 r18").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    # Before transformers 5 the heads of version 2 had these names.
    older = {re.sub(r"^model\.decoder\.(class|bbox)_embed", r"\1_embed", name): x for name, x in tensors.items()}
    assert len(older.keys() - tensors.keys()) == 3 * 8
    save_file(older, tmp_path / "model.safetensors")
    weights = read(tmp_path)
    save_file({**older, **{name: x.clone() for name, x in tensors.items()}}, tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, weights.tensors[name]) for name, tensor in read(tmp_path).tensors.items())
    (tmp_path / "config.json").unlink()
    heads = {"neck.num_heads": 4, "head.decoder.num_heads": 2, "head.decoder.num_points": 3, "head.num_queries": 20}
    bare = read(tmp_path, **heads, **{"head.decoder.offset_scale": 0.7, "head.max_detections": 20})
    assert bare.recipe.to_dict()["head"] == weights.recipe.to_dict()["head"]
    assert any(note.startswith("no config.json: 8 attention heads") for note in bare.notes)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Digest names and shapes."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("recipe", "overrides", "count", "digest"),
    [
        ("rtdetr_r18", {}, 549, "e5ab6480dcbc08db"),
        ("rtdetrv2_r18", {"head.decoder.sampling_method": "discrete"}, 552, "349cd28b1cf5e723"),
    ],
)
def test_names_and_shapes_of_released_sizes(recipe: str, overrides: dict[str, Any], count: int, digest: str) -> None:
    categories = [Category(i, str(i)) for i in range(80)]
    with torch.device("meta"):
        detector = build_resolved(resolve(recipe, overrides).recipe, categories=categories)
    tensors = HuggingFaceRTDETR().write(detector).tensors
    assert (len(tensors), digest_of(tensors)) == (count, digest)


@pytest.mark.parametrize("name", RTDETR)
def test_released_files_predict_what_transformers_recorded(name: str) -> None:
    folder = find_hub_folder(f"PekingU/{name}")
    pixels = RTDetrImageProcessor.from_pretrained(folder)(images=read_image(), return_tensors="pt")["pixel_values"]
    assert_values(build_model(read(folder)), pixels, RTDETR[name].values, box_tolerance=1e-4)


DECODED: dict[str, tuple[list[float], list[str], list[list[float]]]] = {
    "rtdetr_r50vd": (
        [0.9703017, 0.9599504, 0.9575679, 0.9506785],
        ["couch", "cat", "cat", "remote"],
        [
            [0.13774872, 0.37821293, 640.0, 476.21088],
            [343.38132, 24.276838, 640.0, 371.49573],
            [13.225126, 54.179348, 318.98422, 472.2207],
            [40.114475, 73.44104, 175.9573, 118.48469],
        ],
    ),
    "rtdetr_v2_r18vd": (
        [0.9652, 0.9599, 0.9462, 0.8613],
        ["cat", "cat", "remote", "couch"],
        [[341.14, 25.111, 639.98, 372.89]],
    ),
}
"""The best detections of the image of golden values, cut to it."""


@pytest.mark.parametrize("name", DECODED)
def test_released_files_detect_what_transformers_recorded(name: str) -> None:
    detector, image = build_model(read(find_hub_folder(f"PekingU/{name}"))), read_image()
    detections, (scores, names, boxes) = detector.predict(image), DECODED[name]
    torch.testing.assert_close(detections.scores[:4], torch.tensor(scores), rtol=0, atol=1e-3)
    assert [canonical_name(detector.categories[label].name) for label in detections.labels[:4].tolist()] == names
    torch.testing.assert_close(detections.boxes[: len(boxes)], torch.tensor(boxes), rtol=0, atol=0.1)
