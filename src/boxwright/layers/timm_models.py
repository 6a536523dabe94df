"""Models of timm, with fresh weights and for images of any size; errors in one line."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping
from importlib import import_module
from typing import Any

CUT_HGNETS: Mapping[str, tuple[Any, ...]] = {
    "hgnetv2_femto": (256, 64, 512, 1, True, True, 5, 3),
    "hgnetv2_atto": (256, 64, 256, 1, True, True, 3, 3),
}
"""DEIMv2's cuts of ``hgnetv2_b0`` by their third stage, which is the last that they use: the channels that go in, of a
layer and out; blocks; whether it strides and is depthwise; the kernel size; and the layers of a block.

Source: Intellindust-AI-Lab/DEIMv2 0fff8d4. Its Pico is ``hgnetv2_b0`` up to this stage.
"""


def import_timm() -> Any:
    """Import timm where it is needed.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbones of timm need the package timm ({error}): pip install timm") from error
    return timm


def create_timm_model(model: str, options: dict[str, Any]) -> Any:
    """Create a model of timm, made for images of any size where it has that choice.

    Args:
        model: its name in timm, or one of ``CUT_HGNETS``.
        options: of ``timm.create_model``.

    Raises:
        ValueError: no model has this name, or it refuses the options.
    """
    timm = import_timm()
    if model in CUT_HGNETS:
        return _create_hgnet(model, options)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, [*timm.list_models(), *CUT_HGNETS], n=3, cutoff=0.5)
        raise ValueError(
            f"unknown timm model '{model}'; " + (f"nearest: {', '.join(near)}" if near else "see timm.list_models()")
        )
    any_size = {"dynamic_img_size": True, "strict_img_size": False}
    while True:
        try:
            return timm.create_model(model, pretrained=False, **options, **any_size)
        except Exception as error:  # Assertions too: what a model cannot do, timm says in many ways.
            refused = [name for name in any_size if name in str(error)]
            if not refused:
                asked = " and ".join(
                    f"{k} {v}" for k, v in options.items() if k not in ("out_indices", "features_only")
                )
                what = f"{model} with {asked}" if asked else model
                raise ValueError(f"timm has no feature maps of model {what}{error_reason(error)}") from error
            for name in refused:
                del any_size[name]


def _create_hgnet(model: str, options: dict[str, Any]) -> Any:
    """Create an HGNetv2-B0 of timm with another third stage, and a fourth that takes its channels."""
    hgnet = import_module("timm.models.hgnet")
    config, third = dict(hgnet.model_cfgs["hgnetv2_b0"]), CUT_HGNETS[model]
    config |= {"stage3": list(third), "stage4": [third[2], *config["stage4"][1:]]}
    options = {"use_lab": True, "out_indices": (0, 1, 2, 3), **options}
    features = {"flatten_sequential": True, "out_indices": options.pop("out_indices")}
    build = import_module("timm.models").build_model_with_cfg
    try:
        return build(hgnet.HighPerfGpuNet, "hgnetv2_b0", False, model_cfg=config, feature_cfg=features, **options)
    except Exception as error:
        asked = " and ".join(f"{k} {v}" for k, v in options.items() if k not in ("use_lab", "features_only"))
        raise ValueError(f"model {model} takes no {asked}{error_reason(error)}") from error


def error_reason(error: Exception) -> str:
    """Shorten the message of an error to the end of a line that says what failed."""
    text = textwrap.shorten(str(error), 90, placeholder=" ...")
    return f": {text}" if text else ""
