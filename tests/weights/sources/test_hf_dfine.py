"""D-FINE of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Deimv2Config,
    Deimv2ForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    RTDetrImageProcessor,
)

import boxwright
from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model
from boxwright.weights.projects.huggingface_hgnet import write_hgnet_config
from boxwright.weights.sources.hf_dfine import HuggingFaceDFINE
from weights.compared import Recorder, name_version
from weights.rtdetr_models import calibrate
from weights.source_checks import SHAPES
from weights.transformers_models import assert_equal_detections, compare_written, read

SMALL: dict[str, Any] = {
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 48,
    "hidden_expansion": 0.5,
    "depth_mult": 1 / 3,
    "decoder_layers": 3,
    "decoder_ffn_dim": 64,
    "num_queries": 20,
    "num_labels": 6,
}
SIDE, SCALE = 96, 6.0
KINDS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "n": ("hgnetv2_b0", ["c4", "c5"], {"d_model": 64, "decoder_n_points": [6, 6]}),
    # Projections of levels in front of the decoder too, other bins, and norms that count.
    "s": (
        "hgnetv2_b0",
        ["c3", "c4", "c5"],
        {"d_model": 96, "decoder_n_points": 4, "max_num_bins": 16, "freeze_backbone_batch_norms": False},
    ),
}


def make_backbone(model: str, levels: list[str]) -> HGNetV2Config:
    config = write_hgnet_config(model, levels, has_affine=True)
    return HGNetV2Config(**{name: x for name, x in config.items() if name not in ("model_type", "out_features")})


@cache
def make(kind: str) -> Any:
    """A small model of each kind, calibrated."""
    backbone, levels, options = KINDS[kind]
    config, count = make_backbone(backbone, levels), len(levels)
    torch.manual_seed(0)
    model = DFineForObjectDetection(
        DFineConfig(
            backbone_config=config,
            encoder_in_channels=config.hidden_sizes[-count:],
            num_feature_levels=count,
            feat_strides=[8, 16, 32][-count:],
            encode_proj_layers=[count - 1],
            decoder_in_channels=[64] * count,
            reg_scale=SCALE,
            **SMALL,
            **options,
        )
    )
    calibrate(model)
    with torch.no_grad():
        # Constants, though they are parameters there.
        model.model.decoder.up.fill_(0.5)
        model.model.decoder.reg_scale.fill_(SCALE)
    return model.eval()


def save(model: Any, folder: Path) -> RTDetrImageProcessor:
    processor = RTDetrImageProcessor(size={"height": SIDE, "width": SIDE})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor


@pytest.mark.parametrize("kind", ["n", pytest.param("s", marks=pytest.mark.slow)])
def test_detections_of_what_save_pretrained_writes(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model = make(kind)
    processor = save(model, tmp_path)
    weights = read(tmp_path)
    largest = assert_equal_detections(build_model(weights), model, processor)
    record_comparison("hf_dfine", kind, name_version("transformers"), largest, inputs=weights.recipe.input)


@pytest.mark.parametrize("kind", [pytest.param("n", marks=pytest.mark.slow), "s"])
def test_ours_written_in_their_layout_is_theirs(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    (tmp_path / "theirs").mkdir()
    save(make(kind), tmp_path / "theirs")
    ours = build_model(read(tmp_path / "theirs"))
    layout = HuggingFaceDFINE().write(ours)
    (tmp_path / "ours").mkdir()
    largest = compare_written(layout, ours, DFineForObjectDetection, RTDetrImageProcessor, tmp_path / "ours")
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    written = {name: tensor for name, tensor in layout.tensors.items() if name in stored}
    assert written.keys() == stored.keys()
    assert all(torch.equal(written[name], stored[name]) for name in stored)
    project, note = name_version("transformers"), "in double precision"
    record_comparison("hf_dfine", f"{kind}, written", project, largest, images=SHAPES[:1], note=note)


@pytest.mark.slow
def test_older_names_and_files_without_configuration(tmp_path: Path) -> None:
    save(make("n"), tmp_path)
    weights = read(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    # Before transformers 5 the heads had these names.
    heads = ("model.decoder.class_embed", "model.decoder.bbox_embed")
    older = {name.removeprefix("model.decoder.") if name.startswith(heads) else name: x for name, x in tensors.items()}
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").unlink()
    bare = read(tmp_path, **{"head.num_queries": 20, "head.max_detections": 20})
    assert all(torch.equal(tensor, weights.tensors[name]) for name, tensor in bare.tensors.items())
    assert bare.recipe.to_dict()["head"] == weights.recipe.to_dict()["head"]
    assert any(note.startswith("no config.json: 8 attention heads") for note in bare.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder_activation_function": "silu"},
            "its decoder_activation_function is silu; Boxwright's D-FINE has relu",
        ),
        ({"encode_proj_layers": [0, 1]}, r"its encode_proj_layers is \[0, 1\]; Boxwright's D-FINE has \[1\]"),
        ({"eval_idx": 1}, "its eval_idx is 1; Boxwright's D-FINE has -1"),
        ({"backbone_config": {"model_type": "resnet"}}, "its backbone has model_type resnet; Boxwright's HGNetv2 has"),
    ],
)
def test_variants_without_counterpart_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(make("n"), tmp_path)
    files = read_source_files(tmp_path)
    with pytest.raises(ValueError, match=message):
        HuggingFaceDFINE().describe(replace(files, config={**files.config, **change}))


def test_bins_that_end_elsewhere_are_refused(tmp_path: Path) -> None:
    save(make("n"), tmp_path)
    files = read_source_files(tmp_path)
    tensors = {**files.tensors, "model.decoder.up": torch.tensor([0.7])}
    with pytest.raises(ValueError, match=r"inner bins end at 0\.7 sides of the box \(model.decoder.up\), and here at"):
        HuggingFaceDFINE().describe(replace(files, tensors=tensors))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("rtdetr_r18", "not a D-FINE with an HGNetv2"),
        ("deim_dfine_n", "head.decoder.activation is silu, and has to be relu there"),
    ],
)
def test_what_they_do_not_have_is_not_written(recipe: str, message: str) -> None:
    detector = boxwright.build(recipe, num_classes=2, overrides={"image_size": 64})
    with pytest.raises(ValueError, match=message):
        HuggingFaceDFINE().write(detector)


def test_deimv2_of_transformers_is_refused(tmp_path: Path) -> None:
    """It has a layer in front of the selection, which no file of the authors has, and ReLU where theirs has SiLU."""
    options = {"num_feature_levels": 2, "encode_proj_layers": [1], "encoder_in_channels": [512, 1024]}
    options |= {"decoder_in_channels": [64, 64], "feat_strides": [16, 32], "d_model": 64}
    model = Deimv2ForObjectDetection(
        Deimv2Config(backbone_config=make_backbone("hgnetv2_b0", ["c4", "c5"]), **SMALL, **options)
    )
    assert isinstance(model.model.enc_output[0], torch.nn.Linear)
    assert isinstance(model.model.decoder.pre_bbox_head.act, torch.nn.ReLU)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="transformers' DEIMv2 is another network than its authors'"):
        read(tmp_path)


def test_only_layers_that_predict_are_written() -> None:
    detector = boxwright.build("dfine_n", num_classes=2, overrides={"image_size": 64, "head.decoder.eval_layers": 2})
    layout = HuggingFaceDFINE().write(detector)
    assert layout.files["config.json"]["decoder_layers"] == 2
    lists = ("model.decoder.layers.", "model.decoder.lqe_layers.", "model.decoder.bbox_embed.")
    assert {name.split(".")[3] for name in layout.tensors if name.startswith(lists)} == {"0", "1"}
