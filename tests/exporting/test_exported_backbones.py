"""Backbones in every form of the papers export: the graph gives what the detector gives, in each runtime."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph_checks import SHAPES, check_export, make_inputs

from backbone_forms import EXPORTED, FORMS
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.structures import Category
from random_weights import calibrate, shake

OPTIONS: dict[str, Any] = {"image_size": 96, "neck.out_channels": 16, "neck.extra_levels": 0, "head.num_convs": 1}


@pytest.mark.slow
@pytest.mark.parametrize("form", EXPORTED)
def test_every_form(form: str) -> None:
    recipe = resolve("retinanet_r18_fpn", {**OPTIONS, "backbone": FORMS[form]}).recipe
    torch.manual_seed(0)
    detector = build_resolved(recipe, categories=[Category(label, f"class {label}") for label in range(3)])
    shake(detector)
    # Else each layer of a deep network makes what the one before puts out smaller, and nothing is left of the image.
    calibrate(detector, make_inputs(detector.input_format, SHAPES[detector.input_format.resize][0], 4)[0])
    check_export(detector, shaken=True)
