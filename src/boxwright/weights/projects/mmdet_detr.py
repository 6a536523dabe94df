"""Facts that mmdetection's DETR and Deformable DETR have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from boxwright.structures import Category
from boxwright.weights.projects.deformable import read_number
from boxwright.weights.projects.mmdet import describe_input, name_classes
from boxwright.weights.projects.mmdet_config import MMDetConfig
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import Row

_CHECKED: dict[str, Sequence[Any]] = {
    "model.backbone.type": ("ResNet",),
    "model.backbone.style": ("pytorch",),
    "model.backbone.deep_stem": (False,),
    "model.neck.type": ("ChannelMapper",),
    "model.encoder.layer_cfg.ffn_cfg.act_cfg.type": ("ReLU",),
    "model.decoder.layer_cfg.ffn_cfg.act_cfg.type": ("ReLU",),
    "model.positional_encoding.normalize": (True,),
    "model.bbox_head.num_reg_fcs": (2,),
    "model.bbox_head.loss_cls.use_sigmoid": (False, True),
}
"""Facts of a model that no tensor shows, with the values that there is a counterpart of here."""


class MMDetFacts(NamedTuple):
    """Facts that the configuration states, or that are assumed.

    Args:
        overrides: preprocessing and dilation, by dotted key.
        encoder_heads: attention heads; None where the file has no configuration.
        decoder_heads: likewise.
        queries: likewise.
        dilation: of c5; None likewise.
        max_detections: of an image.
        categories: the classes.
        assumptions: one line each.
    """

    overrides: dict[str, Any]
    encoder_heads: int | None
    decoder_heads: int | None
    queries: int | None
    dilation: str | None
    max_detections: int
    categories: list[Category]
    assumptions: list[str]


def read_facts(files: SourceFiles, num_classes: int) -> MMDetFacts:
    """Read the facts that no tensor shows from the configuration in the file.

    Args:
        files: theirs.
        num_classes: without background.

    Raises:
        ValueError: a fact that there is no counterpart of here, in one line.
    """
    config = MMDetConfig.of_files(files)
    for path, accepted in _CHECKED.items():
        value = config.get(path)
        if value is not None and value not in accepted:
            known = " or ".join(map(str, accepted))
            raise ValueError(f"{path} of its configuration is {value}, and can only be {known} here")
    categories, notes = name_classes(files, num_classes)
    padding = config.get("model.data_preprocessor.pad_size_divisor", 1)
    overrides = {**describe_input(config), "input.pad_multiple": padding}
    if not config:
        notes.append(
            "the file has no configuration: input size, mean, std and RGB are those of mmdetection's own "
            "configurations; input.image_size, input.mean and so on say otherwise"
        )
        return MMDetFacts(overrides, None, None, None, None, 100, categories, notes)
    model = config.get("model")
    encoder_heads, decoder_heads = (
        read_number(config.get(f"model.{part}.layer_cfg.self_attn_cfg", {}), "num_heads", 8)
        for part in ("encoder", "decoder")
    )
    return MMDetFacts(
        overrides=overrides,
        encoder_heads=encoder_heads,
        decoder_heads=decoder_heads,
        queries=read_number(model, "num_queries"),
        dilation=_read_dilation(config),
        max_detections=read_number(config.get("model.test_cfg", {}), "max_per_img", 100) or 100,
        categories=categories,
        assumptions=notes,
    )


def _read_dilation(config: MMDetConfig) -> str:
    dilations, strides = config.get("model.backbone.dilations", (1, 1, 1, 1)), config.get("model.backbone.strides")
    if dilations == (1, 1, 1, 1) and strides in (None, (1, 2, 2, 2)):
        return "none"
    if dilations == (1, 1, 1, 2) and strides == (1, 2, 2, 1):
        return "all"
    raise ValueError(f"its backbone has strides {strides} and dilations {dilations}, which have no counterpart here")


def layer_rows(part: str, ours: str) -> list[Row]:
    """List the rows of feed-forward and norms of transformer layers.

    Args:
        part: ``encoder`` or ``decoder``.
        ours: our layers.
    """
    layer = f"{part}.layers.{{n}}"
    return [
        Row(f"{layer}.ffn.layers.0.0.{{*}}", f"{ours}.feed_forward.linear1.{{*}}"),
        Row(f"{layer}.ffn.layers.1.{{*}}", f"{ours}.feed_forward.linear2.{{*}}"),
        Row(f"{layer}.norms.{{k}}.{{*}}", f"{ours}.norm{{k+1}}.{{*}}"),
    ]
