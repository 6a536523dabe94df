"""Backbones that are one network by two names, and those that are two networks with the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from boxwright.backbones.timm import Timm, list_levels
from boxwright.backbones.vit import ViT
from boxwright.backbones.vit_sta import ViTSTA
from boxwright.layers.resnet import BLOCKS_PER_STAGE

PLAIN_RESNETS = {f"resnet{depth}": depth for depth in BLOCKS_PER_STAGE}
"""Models of timm that are the ResNet of torchvision, and ours, by the same names; and their depths."""

_BODY = "body."
_VIT = "vit."


def fit_names(
    backbone: nn.Module, name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    """Bring the names of a backbone's tensors to those of another backbone that is the same network.

    Args:
        backbone: that they are for.
        name: of the part that they are of.
        options: of it.
        tensors: by its names.
        source: for messages.

    Raises:
        ValueError: the names are the same, and the network is another one: of timm, with other paddings or epsilons.
    """
    if isinstance(backbone, Timm):
        if name == "timm":
            _check_network(backbone, str(options.get("model", backbone.model)), source)
        elif name == "resnet" and PLAIN_RESNETS.get(backbone.model) == options.get("depth"):
            return {_BODY + one: tensor for one, tensor in tensors.items()}
    elif isinstance(backbone, ViT | ViTSTA) and name == "timm":
        if (model := options.get("model")) != backbone.vit.model:
            raise ValueError(
                f"{source}: its backbone is timm's {model}, and this one {backbone.vit.model}; "
                f"take --backbone.model {model}"
            )
        return {_VIT + one: tensor for one, tensor in tensors.items()}
    elif name == "timm" and options.get("model") in PLAIN_RESNETS:
        return {one.removeprefix(_BODY): tensor for one, tensor in tensors.items()}
    return tensors


def _check_network(backbone: Timm, model: str, source: str) -> None:
    if model == backbone.model:
        return
    levels = tuple(level for level in list_levels(model) if level in backbone.out_spec)
    with torch.device("meta"):
        other = Timm(model=model, levels=levels)
    theirs = {path: _traits(module) for path, module in other.named_modules()}
    for path, module in backbone.named_modules():
        if (traits := _traits(module)) is not None and theirs.get(path, traits) != traits:
            raise ValueError(
                f"{source}: its backbone is timm's {model}, and this one {backbone.model}, with the same names and "
                f"another {path}: {_describe(theirs[path])} there, {_describe(traits)} here; "
                f"take --backbone.model {model}"
            )


def _traits(module: nn.Module) -> dict[str, Any] | None:
    """List what no tensor of a layer shows, and its output depends on."""
    if isinstance(module, nn.Conv2d):
        return {"type": type(module).__name__, "padding": module.padding}
    if (eps := getattr(module, "eps", None)) is not None:
        return {"eps": float(eps)}
    return None


def _describe(traits: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (traits or {}).items())
