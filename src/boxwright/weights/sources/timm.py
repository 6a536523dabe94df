"""Models of timm: files with its names, and its repositories on the hub."""

from __future__ import annotations

from boxwright.weights.projects.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.projects.networks import PLAIN_RESNETS
from boxwright.weights.projects.timm_models import TimmModel, find_timm_model, timm_model_of_config, timm_model_of_file
from boxwright.weights.projects.timm_named import find_network, name_network
from boxwright.weights.projects.timm_network import describe_timm_backbone
from boxwright.weights.projects.torchvision import release_of
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
"""Names by which files are timm's, whatever they are called: of EfficientNets, ConvNeXt, ViT, Swin, BoTNet, RegNet."""

_RESNET = Table(
    rows=(Row("conv1.{*}", "conv1.{*}"), Row("bn1.{*}", "bn1.{*}"), Row("layer{n}.{**}", "layer{n}.{**}")),
    skips=(Skip("fc.{*}", "the classifier"),),
)


class TimmFiles:
    """Source: Wightman, PyTorch Image Models; names and preprocessing of timm 1.0.31."""

    title = "a model of timm"
    example = "timm:tf_efficientnet_lite0"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind: by what they say, by their hash, or by names of files and tensors.

        Plain ResNets that say no more are torchvision's, which has other networks under timm's names too.
        """
        if _stated_model(files) is not None or any(files.has(*names) for names in _NAMES):
            return True
        return name_network(files) not in (None, *PLAIN_RESNETS)

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words.

        Networks with the same names differ in paddings and epsilons, which no tensor shows: a file that does not say
        which it is has to bear the name of its network.
        """
        model = _stated_model(files)
        assumptions = []
        if model is None:
            architecture = name_network(files) or find_network(files.origin.source)
            if architecture is None:
                raise ValueError(
                    "weights with timm's names, but not of which network: call the file MODEL.pth or "
                    'MODEL.safetensors, or put a config.json beside it with {"architecture": MODEL}'
                )
            model = find_timm_model(architecture)
            if release_of(files) is not None:
                model = model._replace(mean=IMAGENET_MEAN, std=IMAGENET_STD)
            else:
                assumptions.append(
                    f"by the name of the file, it is timm's {architecture}, with its mean {_numbers(model.mean)} and "
                    f"std {_numbers(model.std)}: --input.mean and --input.std say otherwise"
                )
        if model.architecture in PLAIN_RESNETS:
            return _describe_resnet(model, assumptions)
        return describe_timm_backbone(model, assumptions=assumptions)


def _stated_model(files: SourceFiles) -> TimmModel | None:
    if files.release is not None and files.release.startswith("timm:"):
        return timm_model_of_config(files.config) or find_timm_model(files.release.removeprefix("timm:"))
    return timm_model_of_config(files.config) or timm_model_of_file(files.origin.sha256)


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(str(value) for value in values)


def _describe_resnet(model: TimmModel, assumptions: list[str]) -> BackboneModel:
    return BackboneModel(
        part={"name": "resnet", "depth": PLAIN_RESNETS[model.architecture], "levels": ("c2", "c3", "c4", "c5")},
        mean=model.mean,
        std=model.std,
        table=_RESNET,
        assumptions=assumptions,
    )
