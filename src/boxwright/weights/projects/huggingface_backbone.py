"""Backbones of query heads in Hugging Face layout: transformers' own ResNet, or one of timm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from boxwright.layers.resnet import blocks_per_stage, has_bottlenecks_at
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import Row

_PLAIN = re.compile(r"resnet(18|34|50|101|152)(\..+)?")
"""timm's names of ResNets whose tensors have torchvision's names, as ours."""

_LAST = 4
"""Index of c5 among a ResNet's maps."""


@dataclass(frozen=True, kw_only=True)
class HuggingFaceBackbone:
    """A backbone as its files describe it.

    Args:
        options: name and options of ours that no tensor tells.
        is_timm: one of timm, not transformers' own.
        inner: between the names of the backbone and of its tensors.
    """

    options: Mapping[str, Any] = field(default_factory=lambda: {"name": "resnet"})
    is_timm: bool = True
    inner: str = ""

    def rows(self, prefix: str) -> list[Row]:
        """List the rows of its table.

        Args:
            prefix: before their names.
        """
        if self.is_timm:
            ours = "backbone." if self.options["name"] == "resnet" else "backbone.body."
            return [Row(f"{prefix}{self.inner}{{**}}", f"{ours}{{**}}")]
        stage, ours = f"{prefix}encoder.stages.{{s}}.layers.{{n}}.", "backbone.layer{s+1}.{n}."
        return [
            Row(f"{prefix}embedder.embedder.convolution.{{*}}", "backbone.conv1.{*}"),
            Row(f"{prefix}embedder.embedder.normalization.{{*}}", "backbone.bn1.{*}"),
            Row(f"{stage}layer.{{k}}.convolution.{{*}}", f"{ours}conv{{k+1}}.{{*}}"),
            Row(f"{stage}layer.{{k}}.normalization.{{*}}", f"{ours}bn{{k+1}}.{{*}}"),
            Row(f"{stage}shortcut.convolution.{{*}}", f"{ours}downsample.0.{{*}}"),
            Row(f"{stage}shortcut.normalization.{{*}}", f"{ours}downsample.1.{{*}}"),
        ]


def read_backbone(files: SourceFiles, prefix: str, levels: tuple[str, ...] = ("c5",)) -> HuggingFaceBackbone:
    """Read the backbone of a model: today's ``backbone_config``, or older entries.

    Args:
        files: of the model.
        prefix: before the names of its tensors.
        levels: that the model takes.

    Raises:
        ValueError: one that there is no counterpart of here, in one line.
    """
    own = files.config.get("backbone_config") or {}
    if files.has(f"{prefix}embedder.embedder.convolution.weight"):
        _check_own(own)
        return HuggingFaceBackbone(is_timm=False)
    inner = "_backbone." if any(name.startswith(f"{prefix}_backbone.") for name in files.tensors) else ""
    older = {**files.config, **(files.config.get("backbone_kwargs") or {})}
    name, indices = own.get("backbone") or older.get("backbone"), (own or older).get("out_indices") or [_LAST]
    if indices[-1] not in (_LAST, -1):
        raise ValueError(f"its backbone's last map is number {indices[-1]}, not {_LAST} (c5)")
    dilation = _read_dilation(own, older)
    if name is None and not files.has(f"{prefix}{inner}conv1.weight"):
        raise ValueError("its backbone is one of timm, and no config.json says which; put it beside the weights")
    if name is None or _PLAIN.fullmatch(name):
        return HuggingFaceBackbone(options={"name": "resnet", **dilation}, inner=inner)
    _check_timm(name)
    options = {"name": "timm", "model": name, "levels": list(levels), "norm": "frozen"}
    return HuggingFaceBackbone(options={**options, **({"output_stride": 16} if dilation else {})}, inner=inner)


def write_backbone(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``backbone_config`` of a ResNet: transformers' own, or timm's where it is dilated.

    Args:
        options: of our ResNet.

    Raises:
        ValueError: a dilated one of another width than timm's.
    """
    depth, width = options["depth"], options["width"]
    if options["dilation"] != "none":
        if width != 64:
            raise ValueError(f"backbone.width is {width}, and has to be 64 there: it is dilated, and so timm's")
        if not isinstance(depth, int):
            raise ValueError(f"backbone.depth is {depth}, and has to be one number there: it is dilated, and so timm's")
        indices = {"out_indices": [1, 2, 3, 4], "output_stride": 16, "features_only": True}
        return {
            "model_type": "timm_backbone",
            "backbone": f"resnet{depth}",
            "use_pretrained_backbone": False,
            **indices,
        }
    widest = width * (4 if has_bottlenecks_at(depth) else 1)
    return {
        "model_type": "resnet",
        "layer_type": "bottleneck" if has_bottlenecks_at(depth) else "basic",
        "depths": list(blocks_per_stage(depth)),
        "embedding_size": width,
        "hidden_sizes": [widest * 2**stage for stage in range(4)],
        "out_features": ["stage4"],
        "out_indices": [_LAST],
    }


def _read_dilation(own: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    stride = own.get("output_stride") if own else older.get("output_stride") or (16 if older.get("dilation") else None)
    if stride not in (None, 16, 32):
        raise ValueError(f"its backbone has output_stride {stride}; Boxwright's have 32, or 16 with dilation")
    return {"dilation": "after_first"} if stride == 16 else {}


def _check_own(config: Mapping[str, Any]) -> None:
    """Refuse variants of transformers' own ResNet."""
    usual = {"hidden_act": "relu", "downsample_in_bottleneck": False, "downsample_in_first_stage": False}
    for option, value in usual.items():
        if config.get(option, value) != value:
            raise ValueError(f"its backbone has {option} {config[option]}; Boxwright's ResNet has {value}")
    if (config.get("out_features") or ["stage4"])[-1] != "stage4":
        raise ValueError(f"its backbone's last map is {config['out_features'][-1]}, not stage4 (c5)")


def _check_timm(name: str) -> None:
    """Refuse a model whose norms transformers exchanges for other ones: with activation, or another eps."""
    from boxwright.backbones.timm import Timm

    with torch.device("meta"):
        norms = [module for module in Timm(model=name, levels=("c5",)).modules() if isinstance(module, nn.BatchNorm2d)]
    if any(type(norm) is not nn.BatchNorm2d or norm.eps != 1e-5 for norm in norms):
        raise ValueError(f"its backbone is timm's {name}, whose norms transformers exchanges for other ones")
