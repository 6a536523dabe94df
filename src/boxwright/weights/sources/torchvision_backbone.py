"""ResNets and MobileNetV2 of torchvision, trained as classifiers: the weights that most detectors start from."""

from __future__ import annotations

from boxwright.weights.projects.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.projects.torchvision import read_resnet
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip, Table

__all__ = ["TorchvisionBackbone"]

_CLASSIFIER = "the classifier, which a detector has no use for"

_RESNET = Table(
    rows=(Row("conv1.{*}", "conv1.{*}"), Row("bn1.{*}", "bn1.{*}"), Row("layer{n}.{**}", "layer{n}.{**}")),
    skips=(Skip("fc.{*}", _CLASSIFIER),),
)

_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of each stage of MobileNetV2, which torchvision counts through and timm stage by stage."""

_MOBILENET_WIDTHS = (32, 1280)
"""Channels of the first and the last convolution at width 1."""

_SEPARABLE = {"conv.0.0": "conv_dw", "conv.0.1": "bn1", "conv.1": "conv_pw", "conv.2": "bn2"}
_INVERTED = {
    "conv.0.0": "conv_pw",
    "conv.0.1": "bn1",
    "conv.1.0": "conv_dw",
    "conv.1.1": "bn2",
    "conv.2": "conv_pwl",
    "conv.3": "bn3",
}


class TorchvisionBackbone:
    """Source: torchvision 0.29's ``resnet18``, 34, 50, 101, 152 and ``mobilenet_v2``, weights V1 and V2."""

    title = "ResNet and MobileNetV2 of torchvision"
    example = "torchvision:resnet50"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind; timm's ResNets have the same names, and say that they are timm's."""
        if "architecture" in files.config or str(files.release).startswith("timm:"):
            return False
        return files.has("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight") or _is_mobilenet(files)

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words."""
        if _is_mobilenet(files):
            part, table = _read_mobilenet(files), _mobilenet_table()
        else:
            resnet, table = read_resnet(files.tensors, ""), _RESNET
            part = {key: resnet[key] for key in ("name", "depth", "width")}
        return BackboneModel(part=part, mean=IMAGENET_MEAN, std=IMAGENET_STD, table=table)


def _is_mobilenet(files: SourceFiles) -> bool:
    return files.has("features.0.0.weight", "features.1.conv.2.running_var", "features.18.0.weight")


def _read_mobilenet(files: SourceFiles) -> dict[str, str | int]:
    widths = tuple(len(files.tensors[f"features.{index}.0.weight"]) for index in (0, 18))
    if widths != _MOBILENET_WIDTHS:
        raise ValueError(f"a MobileNetV2 of another width than 1: {widths[0]} channels in its first convolution")
    return {"name": "timm", "model": "mobilenetv2_100"}


def _mobilenet_table() -> Table:
    rows = [Row("features.0.0.{*}", "body.conv_stem.{*}"), Row("features.0.1.{*}", "body.bn1.{*}")]
    index = 1
    for stage, num_blocks in enumerate(_MOBILENET_BLOCKS):
        for block in range(num_blocks):
            for theirs, ours in (_INVERTED if stage else _SEPARABLE).items():
                rows.append(Row(f"features.{index}.{theirs}.{{*}}", f"body.blocks.{stage}.{block}.{ours}.{{*}}"))
            index += 1
    head = Skip("features.18.{**}", "the convolution before the classifier, which is on no level")
    return Table(rows=rows, skips=(head, Skip("classifier.{**}", _CLASSIFIER)))
