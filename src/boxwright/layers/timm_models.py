"""Models of timm, with fresh weights and for images of any size; errors in one line."""

from __future__ import annotations

import difflib
import textwrap
from typing import Any


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
        model: its name in timm.
        options: of ``timm.create_model``.

    Raises:
        ValueError: no model has this name, or it refuses the options.
    """
    timm = import_timm()
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
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


def error_reason(error: Exception) -> str:
    """Shorten the message of an error to the end of a line that says what failed."""
    text = textwrap.shorten(str(error), 90, placeholder=" ...")
    return f": {text}" if text else ""
