"""MobileNetV2 of torchvision, which is timm's ``mobilenetv2_100`` by other names."""

from __future__ import annotations

from boxwright.weights.projects.timm_models import find_timm_model
from boxwright.weights.projects.timm_network import describe_timm_backbone, list_blocks
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip

__all__ = ["TorchvisionMobileNet"]

_ARCHITECTURE = "mobilenetv2_100"

_EXPANDED = {
    "conv.0.0": "conv_pw",
    "conv.0.1": "bn1",
    "conv.1.0": "conv_dw",
    "conv.1.1": "bn2",
    "conv.2": "conv_pwl",
    "conv.3": "bn3",
}
_PLAIN = {"conv.0.0": "conv_dw", "conv.0.1": "bn1", "conv.1": "conv_pw", "conv.2": "bn2"}
"""Layers of a block in timm, also of the first one, which does not expand."""


class TorchvisionMobileNet:
    """Source: Sandler et al., MobileNetV2, CVPR 2018; names of torchvision 0.29.1."""

    title = "MobileNetV2 of torchvision"
    example = "mobilenet_v2-b0353104.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("features.0.0.weight", "features.1.conv.0.0.weight", "features.2.conv.2.weight")

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words: the width is 1, as of the released file."""
        del files
        blocks = list_blocks(_ARCHITECTURE)
        rows = [Row("features.0.0.{*}", "conv_stem.{*}"), Row("features.0.1.{*}", "bn1.{*}")]
        for index, block in enumerate(blocks, 1):
            layers = _PLAIN if index == 1 else _EXPANDED
            rows += [Row(f"features.{index}.{one}.{{*}}", f"{block}.{ours}.{{*}}") for one, ours in layers.items()]
        head = f"features.{len(blocks) + 1}"
        return describe_timm_backbone(
            find_timm_model(_ARCHITECTURE),
            rows=rows,
            skips=[Skip(f"{name}.{{*}}", "the classifier") for name in (f"{head}.0", f"{head}.1", "classifier.1")],
        )
