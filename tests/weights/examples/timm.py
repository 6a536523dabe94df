"""Examples of files of timm."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make files by their names, by their configuration, and by what the user named."""
    resnet = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.2.conv3.weight", "fc.weight", "fc.bias")
    return [
        example_files("conv_stem.weight", "bn1.weight", "blocks.0.0.bn1.weight", "classifier.weight"),
        example_files("patch_embed.proj.weight", "cls_token", "blocks.0.attn.qkv.weight", "head.weight"),
        example_files("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight", "head.fc.weight"),
        example_files("stem.0.weight", "stages.0.blocks.0.norm.weight", "stages.0.blocks.0.conv_dw.weight"),
        example_files(*resnet, config={"architecture": "resnet50", "pretrained_cfg": {"tag": "a1_in1k"}}),
        example_files(*resnet, release="timm:resnet50.a1_in1k"),
    ]
