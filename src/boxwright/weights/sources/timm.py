"""Models of timm: files with its names, and its repositories on the hub."""

from __future__ import annotations

from pathlib import Path

import timm

from boxwright.weights.projects.timm_models import TimmModel, find_timm_model, timm_model_of_config, timm_model_of_file
from boxwright.weights.projects.timm_network import describe_timm_backbone
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip, Table

__all__ = ["TimmFiles"]

_NAMES = (
    ("conv_stem.weight", "blocks.0.0.bn1.weight"),
    ("stem.0.weight", "stages.0.blocks.0.norm.weight"),
    ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"),
    ("stem.conv1.conv.weight", "stages.0.0.conv1_1x1.conv.weight"),
    ("stem.conv.weight", "s1.b1.conv1.conv.weight"),
)
"""Names by which files are timm's, and no more: of EfficientNets, ConvNeXt, ViT, Swin, BoTNet and RegNet."""

_RESNETS = {f"resnet{depth}": depth for depth in (18, 34, 50, 101, 152)}
"""Models that are the ResNet of torchvision, and ours, by the same names."""

_RESNET = Table(
    rows=(Row("conv1.{*}", "conv1.{*}"), Row("bn1.{*}", "bn1.{*}"), Row("layer{n}.{**}", "layer{n}.{**}")),
    skips=(Skip("fc.{*}", "the classifier"),),
)


class TimmFiles:
    """Source: Wightman, PyTorch Image Models; names and preprocessing of timm 1.0.31."""

    title = "a model of timm"
    example = "timm:tf_efficientnet_lite0"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind: by what they say, by their hash, or by their names."""
        return _stated_model(files) is not None or any(files.has(*names) for names in _NAMES)

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words.

        Networks with the same names differ in paddings and epsilons, which no tensor shows: a file that does not say
        which it is has to bear the name of its network.
        """
        model = _stated_model(files)
        assumptions = []
        if model is None:
            architecture = _named_model(files.origin.source)
            if architecture is None:
                raise ValueError(
                    "weights with timm's names, but not of which network: call the file MODEL.pth or "
                    'MODEL.safetensors, or put a config.json beside it with {"architecture": MODEL}'
                )
            model = find_timm_model(architecture)
            assumptions.append(
                f"by the name of the file, it is timm's {architecture}, with its mean {_numbers(model.mean)} and "
                f"std {_numbers(model.std)}: --input.mean and --input.std say otherwise"
            )
        if model.architecture in _RESNETS:
            return _describe_resnet(model, assumptions)
        return describe_timm_backbone(model, assumptions=assumptions)


def _stated_model(files: SourceFiles) -> TimmModel | None:
    if files.release is not None and files.release.startswith("timm:"):
        return timm_model_of_config(files.config) or find_timm_model(files.release.removeprefix("timm:"))
    return timm_model_of_config(files.config) or timm_model_of_file(files.origin.sha256)


def _named_model(source: str) -> str | None:
    """Find the model of timm that a file is called by: the longest name that it begins with."""
    name = Path(source).name.lower()
    names = [model for model in timm.list_models() if name.startswith(model)]
    longest = max(names, key=len, default=None)
    # resnet50d.pth is no resnet50.
    return longest if longest is not None and not name[len(longest) :][:1].isalnum() else None


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(str(value) for value in values)


def _describe_resnet(model: TimmModel, assumptions: list[str]) -> BackboneModel:
    return BackboneModel(
        part={"name": "resnet", "depth": _RESNETS[model.architecture], "levels": ("c2", "c3", "c4", "c5")},
        mean=model.mean,
        std=model.std,
        table=_RESNET,
        assumptions=assumptions,
    )
