"""Backbones of RT-DETR's authors: the pretrained ResNets-vd and HGNetv2 that its training begins with."""

from __future__ import annotations

from boxwright.weights.projects.rtdetr import infer_backbone
from boxwright.weights.projects.rtdetr_names import backbone_rows
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Table

__all__ = ["RTDETRBackbone"]


class RTDETRBackbone:
    """Source: ``PResNet`` and ``HGNetv2`` of lyuwenyu/RT-DETR 068dfde; the weights are PaddleClas', of ImageNet."""

    title = "ResNet-vd and HGNetv2 of RT-DETR's authors"
    example = "ResNet50_vd_ssld_v2_pretrained_from_paddle.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("conv1.conv1_1.conv.weight", "res_layers.0.blocks.0.branch2a.conv.weight") or files.has(
            "stem.stem2a.conv.1.weight", "stages.0.blocks.0.aggregation_squeeze_conv.conv.weight"
        )

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words."""
        table = Table(rows=tuple(backbone_rows("", "")))
        tensors = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
        return BackboneModel(
            part=infer_backbone(tensors, ""),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            table=table,
            assumptions=(
                "inputs in [0, 1], as RT-DETR is trained on this backbone; it was pretrained on ImageNet with its mean "
                "and standard deviation (input.mean, input.std)",
            ),
        )
