"""ResNets of torchvision, trained as classifiers: the weights that most detectors start from."""

from __future__ import annotations

from boxwright.weights.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip, Table
from boxwright.weights.torchvision_structure import read_resnet

__all__ = ["TorchvisionBackbone"]

_TABLE = Table(
    rows=(Row("conv1.{*}", "conv1.{*}"), Row("bn1.{*}", "bn1.{*}"), Row("layer{n}.{**}", "layer{n}.{**}")),
    skips=(Skip("fc.{*}", "the classifier, which a detector has no use for"),),
)


class TorchvisionBackbone:
    """Source: torchvision 0.29's ``resnet18``, 34, 50, 101 and 152, weights V1 and V2."""

    title = "ResNet of torchvision"
    example = "torchvision:resnet50"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind; timm's ResNets have the same names, and say that they are timm's."""
        is_timm = "architecture" in files.config or str(files.release).startswith("timm:")
        return files.has("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight") and not is_timm

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words."""
        return BackboneModel(part=read_resnet(files.tensors, ""), mean=IMAGENET_MEAN, std=IMAGENET_STD, table=_TABLE)
