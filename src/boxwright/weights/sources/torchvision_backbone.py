"""ResNets of torchvision, trained as classifiers: the weights that most detectors start from."""

from __future__ import annotations

from boxwright.weights.projects.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.projects.networks import PLAIN_RESNETS
from boxwright.weights.projects.timm_named import name_network
from boxwright.weights.projects.torchvision import read_resnet
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip, Table

__all__ = ["TorchvisionBackbone"]

_CLASSIFIER = "the classifier, which a detector has no use for"

_RESNET = Table(
    rows=(Row("conv1.{*}", "conv1.{*}"), Row("bn1.{*}", "bn1.{*}"), Row("layer{n}.{**}", "layer{n}.{**}")),
    skips=(Skip("fc.{*}", _CLASSIFIER),),
)


_NAMED = "resnext50_32x4d.pth"


class TorchvisionBackbone:
    """Source: torchvision 0.29's ``resnet18``, 34, 50, 101 and 152, weights V1 and V2."""

    title = "ResNet of torchvision"
    example = "torchvision:resnet50"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind: timm's have the same names, and say or are called what they are."""
        if "architecture" in files.config or str(files.release).startswith("timm:"):
            return False
        if not files.has("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight"):
            return False
        return name_network(files) in (None, *PLAIN_RESNETS)

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words."""
        try:
            resnet = read_resnet(files.tensors, "")
        except ValueError as error:
            raise ValueError(f"{error}; if timm has this network, call the file by its name there: {_NAMED}") from error
        part = {key: resnet[key] for key in ("name", "depth", "width")}
        return BackboneModel(part=part, mean=IMAGENET_MEAN, std=IMAGENET_STD, table=_RESNET)
