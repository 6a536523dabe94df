"""RF-DETR of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import RfDetrConfig, RfDetrForInstanceSegmentation, RfDetrForObjectDetection
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config
from transformers.models.rf_detr.image_processing_rf_detr import RfDetrImageProcessor

import boxwright
from boxwright.heads.lwdetr import LWDETR
from boxwright.weights.model import build_model
from boxwright.weights.sources.hf_rfdetr import HuggingFaceRFDETR
from parity.formula import uniform
from weights.compared import Recorder, name_version
from weights.source_checks import SHAPES
from weights.transformers_models import assert_equal_detections, compare_written, read

SIDE = 96
SMALL: dict[str, Any] = {
    "d_model": 64,
    "decoder_layers": 2,
    "decoder_ffn_dim": 40,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 8,
    "decoder_n_points": 2,
    "num_queries": 20,
    "group_detr": 3,
    "dropout": 0.0,
    "num_labels": 7,
}


@torch.no_grad()
def make(kind: type = RfDetrForObjectDetection, **options: Any) -> Any:
    """A small model on weights that tell images and queries apart; its last block has no part in any map."""
    torch.manual_seed(0)
    backbone = RfDetrDinov2Config(
        hidden_size=384,
        num_hidden_layers=3,
        num_attention_heads=6,
        image_size=SIDE,
        patch_size=16,
        num_windows=2,
        out_features=["stage1", "stage2"],
    )
    model: Any = kind(RfDetrConfig(backbone_config=backbone, **{"layer_norm_eps": 1e-6, **SMALL, **options}))
    for name, parameter in model.named_parameters():
        if "query_feat" in name:
            parameter.normal_()
        elif parameter.ndim > 1:
            gain = 0.02 if "reference_point" in name or "sampling_offsets" in name else 2.0
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5)
        elif ("norm" in name and name.endswith("weight")) or "lambda" in name:
            parameter.uniform_(0.5, 1.0)
        elif "sampling_offsets" not in name:
            parameter.normal_(0, 0.1)
    return model.eval()


def save(model: Any, folder: Path) -> RfDetrImageProcessor:
    processor = RfDetrImageProcessor(size={"height": SIDE, "width": SIDE})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor


def test_detections_of_what_save_pretrained_writes(tmp_path: Path, record_comparison: Recorder) -> None:
    """Their processor resizes without antialias, and so does ours for their files."""
    model = make()
    processor = save(model, tmp_path)
    weights = read(tmp_path)
    assert not weights.recipe.input.antialias
    largest = assert_equal_detections(build_model(weights), model, processor)
    record_comparison("hf_rfdetr", "small", name_version("transformers"), largest, inputs=weights.recipe.input)


def test_ours_written_in_their_layout_is_theirs(tmp_path: Path, record_comparison: Recorder) -> None:
    (tmp_path / "theirs").mkdir()
    save(make(), tmp_path / "theirs")
    ours = build_model(read(tmp_path / "theirs"))
    layout = HuggingFaceRFDETR().write(ours)
    (tmp_path / "ours").mkdir()
    largest = compare_written(layout, ours, RfDetrForObjectDetection, RfDetrImageProcessor, tmp_path / "ours")
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in layout.tensors.items())
    assert {name for name in stored.keys() - layout.tensors.keys() if ".layer.2." not in name} == {
        "backbone.0.encoder.encoder.embeddings.mask_token"
    }
    project, note = name_version("transformers"), "in double precision"
    record_comparison("hf_rfdetr", "small, written", project, largest, images=SHAPES[:1], note=note)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder_activation_function": "gelu"},
            "its decoder_activation_function is gelu; Boxwright's RF-DETR has relu",
        ),
        ({"num_feature_levels": 2}, "its num_feature_levels is 2; Boxwright's RF-DETR has 1"),
        ({"decoder_self_attention_heads": "x"}, "its sa_nheads is 'x', and should be a number of at least 1"),
    ],
)
def test_variants_without_counterpart_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(make(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_another_epsilon_of_the_projector_is_said(tmp_path: Path) -> None:
    save(make(layer_norm_eps=1e-5), tmp_path)
    assert (
        "norms of its projector have an epsilon of 1e-05, and here, as its authors' do, of 1e-06"
        in read(tmp_path).notes
    )


def test_masks_are_read_and_written(tmp_path: Path, record_comparison: Recorder) -> None:
    """Those of all queries agree, also in what is written; theirs have no other names than their authors' either."""
    model = make(RfDetrForInstanceSegmentation, intermediate_size=256)
    save(model, tmp_path)
    ours = build_model(read(tmp_path))
    assert isinstance(ours.head, LWDETR)
    layout = HuggingFaceRFDETR().write(ours)
    (tmp_path / "ours").mkdir()
    kinds = RfDetrForInstanceSegmentation, RfDetrImageProcessor
    largest = compare_written(layout, ours, *kinds, tmp_path / "ours")
    pixels = uniform("images", 1, 3, SIDE, SIDE)
    with torch.no_grad():
        output: Any = ours(pixels)
        expected = model.double()(pixel_values=pixels).pred_masks.sigmoid()
    masks = output.masks.probabilities(torch.arange(SMALL["num_queries"])[None])
    assert expected.std() > 0.05
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-5)
    largest["mask probabilities"] = float((masks - expected).abs().max())
    project, note = name_version("transformers"), "in double precision"
    record_comparison("hf_rfdetr", "masks, written", project, largest, images=SHAPES[:1], note=note)


def test_models_that_resize_as_the_authors_do_ask_for_options() -> None:
    options = {"image_size": 64, "backbone.blocks": [0], "backbone.num_windows": 1, "backbone.global_blocks": []}
    detector = boxwright.build("rfdetr_n", num_classes=2, overrides=options)
    with pytest.raises(ValueError, match=r"give --input\.antialias false --input\.resize_floats true"):
        HuggingFaceRFDETR().write(detector)
