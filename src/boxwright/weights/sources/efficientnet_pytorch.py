"""EfficientNet-PyTorch and its Lite models: TensorFlow's EfficientNets, whose blocks are counted through."""

from __future__ import annotations

from typing import NamedTuple

from boxwright.weights.projects.timm_models import find_timm_model
from boxwright.weights.projects.timm_network import describe_timm_backbone, list_blocks
from boxwright.weights.source import BackboneModel, SourceFiles
from boxwright.weights.table import Row, Skip

__all__ = ["EfficientNetPyTorch"]

_RELEASED = {"579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "tf_efficientnet_lite0"}
"""Files by their SHA-256: ``efficientnet-lite0-57934424.pth``."""

_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""Layers of a block in timm, also of one that does not expand: of the first stage."""


class _Shape(NamedTuple):
    """Number of blocks, channels of the last one, and squeeze-and-excitation."""

    num_blocks: int
    channels: int
    has_excitation: bool


_NETWORKS = {
    **{
        _Shape(blocks, channels, True): f"tf_efficientnet_b{index}"
        for index, (blocks, channels) in enumerate(
            ((16, 320), (23, 320), (23, 352), (26, 384), (32, 448), (39, 512), (45, 576), (55, 640))
        )
    },
    **{
        _Shape(blocks, channels, False): f"tf_efficientnet_lite{index}"
        for index, (blocks, channels) in enumerate(((16, 320), (23, 320), (23, 352), (26, 384), (32, 448)))
    },
}


class EfficientNetPyTorch:
    """Source: the names of lukemelas/EfficientNet-PyTorch; the Lite models' files have them too."""

    title = "EfficientNet-PyTorch"
    example = "efficientnet-lite0-57934424.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("_conv_stem.weight", "_bn0.weight", "_blocks.0._depthwise_conv.weight")

    def describe_backbone(self, files: SourceFiles) -> BackboneModel:
        """Describe the backbone in our words."""
        architecture = _RELEASED.get(files.origin.sha256 or "")
        assumptions = []
        if architecture is None:
            architecture = _network_of_shape(files)
            assumptions.append(
                f"the file does not say how images were normalized: taken for {architecture} as TensorFlow trained it; "
                "--input.mean and --input.std say otherwise"
            )
        rows = [Row("_conv_stem.{*}", "conv_stem.{*}"), Row("_bn0.{*}", "bn1.{*}")]
        for index, block in enumerate(list_blocks(architecture)):
            layers = _PLAIN if block.startswith("blocks.0.") else _EXPANDED
            rows += [Row(f"_blocks.{index}.{theirs}.{{*}}", f"{block}.{ours}.{{*}}") for theirs, ours in layers.items()]
        return describe_timm_backbone(
            find_timm_model(architecture),
            rows=rows,
            skips=[Skip(f"{name}.{{*}}", "the classifier") for name in ("_conv_head", "_bn1", "_fc")],
            assumptions=assumptions,
        )


def _network_of_shape(files: SourceFiles) -> str:
    indices = [int(name.split(".")[1]) for name in files.tensors if name.startswith("_blocks.")]
    last = files.tensors.get(f"_blocks.{max(indices)}._bn2.weight")
    shape = _Shape(max(indices) + 1, 0 if last is None else len(last), files.has("_blocks.0._se_reduce.weight"))
    if shape not in _NETWORKS:
        raise ValueError(
            f"an EfficientNet of {shape.num_blocks} blocks, the last of {shape.channels} channels: none of timm's is so"
        )
    return _NETWORKS[shape]
