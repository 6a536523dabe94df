"""HGNetv2 as a backbone in Hugging Face layout: names, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from boxwright.layers.timm_models import CUT_HGNETS
from boxwright.weights.table import Row

_FIXED = {"model_type": "hgnet_v2", "hidden_act": "relu", "num_channels": 3}

_STAGE = (
    "stage_in_channels",
    "stage_mid_channels",
    "stage_out_channels",
    "stage_num_blocks",
    "stage_downsample",
    "stage_light_block",
    "stage_kernel_size",
    "stage_numb_of_layers",
)
"""Entries of their configuration, each a list over the stages, in the order of timm's configuration of a stage."""


def make_hgnet_rows(theirs: str) -> list[Row]:
    """Make the rows of the backbone.

    Args:
        theirs: before their names, with its dot.
    """
    ours = "backbone.body."
    block, ours_block = "encoder.stages.{s}.blocks.{n}.", "stages_{s}.blocks.{n}."
    paths = [(f"embedder.{name}.", f"stem.{name}.") for name in ("stem1", "stem2a", "stem2b", "stem3", "stem4")]
    paths += [
        ("encoder.stages.{s}.downsample.", "stages_{s}.downsample."),
        (f"{block}layers.{{k}}.", f"{ours_block}layers.{{k}}."),
        (f"{block}layers.{{k}}.conv{{i}}.", f"{ours_block}layers.{{k}}.conv{{i}}."),
        (f"{block}aggregation.{{k}}.", f"{ours_block}aggregation.{{k}}."),
    ]
    parts = (("convolution", "conv"), ("normalization", "bn"), ("lab", "lab"))
    return [
        Row(f"{theirs}{their_path}{their_name}.{{*}}", f"{ours}{path}{name}.{{*}}")
        for their_path, path in paths
        for their_name, name in parts
    ]


def check_hgnet_config(config: Mapping[str, Any]) -> None:
    """Refuse variants of the backbone.

    Raises:
        ValueError: an entry has another value than ours, in one line.
    """
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"its backbone has {name} {config[name]}; Boxwright's HGNetv2 has {value}")


def write_hgnet_config(model: str, levels: Sequence[str], *, has_affine: bool) -> dict[str, Any]:
    """Make ``backbone_config``.

    Args:
        model: its name in timm, or of one of its cuts.
        levels: that go out.
        has_affine: activations are followed by a scale and a bias.
    """
    configs = import_module("timm.models.hgnet").model_cfgs
    cut = CUT_HGNETS.get(model)
    config = dict(configs[model if cut is None else "hgnetv2_b0"])
    if cut is not None:
        config["stage3"] = list(cut)
    last = int(levels[-1][1:]) - 1
    stages = [config[f"stage{i}"] for i in range(1, last + 1)]
    columns = {name: [stage[i] for stage in stages] for i, name in enumerate(_STAGE)}
    indices = [int(level[1:]) - 1 for level in levels]
    return {
        **_FIXED,
        **columns,
        "stem_channels": [3, *config["stem_chs"]],
        "embedding_size": config["stem_chs"][-1],
        "stage_downsample_strides": [2] * last,
        "depths": columns["stage_num_blocks"],
        "hidden_sizes": columns["stage_out_channels"],
        "use_learnable_affine_block": has_affine,
        "out_indices": indices,
        "out_features": [f"stage{i}" for i in indices],
    }
