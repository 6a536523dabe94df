"""Deformable DETR of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeformableDetrForObjectDetection, DeformableDetrImageProcessor

from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.sources.hf_deformable_detr import HuggingFaceDeformableDETR
from weights.sources.deformable_checks import PROCESSOR, VARIANTS, assert_detects_as, make_model

VARIANT_NAMES = [name for name in VARIANTS if name != "single-scale, dilated, R50"]


def save(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return dict(load_file(folder / "model.safetensors"))


def read(folder: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(folder), overrides)


@pytest.mark.parametrize("variant", VARIANT_NAMES)
def test_the_same_detections(variant: str, tmp_path: Path) -> None:
    model = make_model(variant)
    save(model, tmp_path)
    weights = read(tmp_path)
    assert not weights.skipped
    assert len(weights.notes) == 1, weights.notes  # Names of classes.
    assert_detects_as(build_model(weights), model)
