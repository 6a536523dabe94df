"""DEIMv2 of its authors: sizes S and M on a vision transformer, N, Pico, Femto and Atto on an HGNetv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boxwright.detector import Detector
from boxwright.necks.hybrid_encoder import SUMS
from boxwright.weights.projects.deformable import LocatedTensors, locate_tensors
from boxwright.weights.projects.deimv2_names import DEIMV2_BACKBONE, DEIMV2_PERIODS, make_deimv2_table
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.dfine import (
    infer_decoder_options,
    infer_encoder_options,
    infer_fusion_options,
    infer_hgnet,
    read_constants,
    write_constants,
)
from boxwright.weights.projects.plain_vits import (
    NUM_BLOCKS,
    infer_vit_options,
    make_periods,
    need_vit_options,
    read_blocks,
    read_queries,
)
from boxwright.weights.projects.rtdetr import dotted_options
from boxwright.weights.projects.rtdetr_authors import list_weights, name_unnamed_classes
from boxwright.weights.projects.written_options import check_options, read_parts
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["AuthorsDEIMv2"]

LITE_LEVELS = 2
"""That the lite encoder makes of one."""

_USUAL_BLOCKS = (3, 7, 11)

_LITE = {"hgnetv2_b0": "pico", "hgnetv2_femto": "femto", "hgnetv2_atto": "atto"}
"""Sizes with the lite encoder by their backbones."""

_HEAD = {
    "head.decoder.reference_encoding": "deep",
    "head.decoder.activation": "silu",
    "head.decoder.offset_scale": 0.5,
}
"""Options that their decoder has in one form."""

_ENCODER = {"neck.variant": "E", "neck.activation": "gelu"}
"""Options that their hybrid encoder has in one form."""

_WRITABLE = (["vit_sta", "hybrid_encoder"], ["timm", "hybrid_encoder"], ["timm", "lite_encoder"])
"""Backbones and necks of theirs."""


class AuthorsDEIMv2:
    """Source: Huang et al., Real-Time Object Detection Meets DINOv3, 2025; names of Intellindust-AI-Lab/DEIMv2
    0fff8d4.
    """

    title = "DEIMv2 of its authors"
    example = "deimv2_dinov3_s_coco.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        layer = "decoder.decoder.layers.0.swish_ffn.w12.weight"
        return files.has(layer, "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        if files.has("backbone.dinov3.storage_tokens"):
            raise ValueError(
                "DEIMv2's sizes L and X, with a transformer of DINOv3 itself, have no counterpart here yet"
            )
        assumptions = ["8 attention heads in the encoder (neck.num_heads)"]
        is_vit = files.has(f"{DEIMV2_BACKBONE}cls_token")
        is_lite = not is_vit and files.has("encoder.down_sample1.1.weight")
        num_levels = 3 if is_vit else max(count_indices(files.tensors, "encoder.input_proj.{n}.conv.weight"), 1)
        num_layers = count_indices(files.tensors, "decoder.dec_score_head.{n}.weight")
        blocks = read_blocks(files.config.get("DINOv3STAs"), _USUAL_BLOCKS, assumptions) if is_vit else []
        is_gated = files.has("decoder.decoder.layers.0.gateway.gate.weight")
        table = make_deimv2_table(
            num_levels, num_blocks=blocks[-1] + 1 if is_vit else 0, num_shared=0 if is_gated else num_layers
        )
        tensors = locate_tensors(table, files)
        size, options = _infer_backbone(tensors, num_levels, blocks)
        if is_lite:
            dim = tensors.side("necks.0.add_mean.conv.weight", ndim=4)
            fusion = infer_fusion_options(tensors, "necks.0", dim)
            options |= {"neck.hidden_dim": dim, **{f"neck.{name}": value for name, value in fusion.items()}}
        else:
            options |= infer_encoder_options(tensors)
            is_smooth = "necks.0.down_blocks.0.stages.0.1.conv.weight" in tensors
            options["neck.fusion"] = "elan_sum" if is_smooth else "elan_slim"
        constants, assumed = read_constants(files.tensors, LITE_LEVELS if is_lite else num_levels)
        options |= infer_decoder_options(tensors) | constants | read_queries(files.config.get("DEIMTransformer"))
        options["head.decoder.design"] = "swiglu" if is_gated else "swiglu_shared"
        categories, note = name_unnamed_classes(tensors.side("head.classes.0.weight"))
        return SourceModel(
            recipe=f"deimv2_{size}",
            overrides=options,
            categories=categories,
            table=table,
            assumptions=(*assumptions, *assumed, note),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with the constants of its input size and of its bins."""
        recipe = {} if detector.recipe is None else detector.recipe.to_dict()
        own = [part["name"] for part in (recipe["backbone"], *recipe["neck"])] if recipe else []
        parts = read_parts(detector, "DEIMv2", (*(own if own in _WRITABLE else _WRITABLE[0]), "dfine"))
        options = dotted_options(dict(zip(("backbone", "neck", "head"), parts, strict=True)))
        is_vit, is_lite = own[0] == "vit_sta", own[1] == "lite_encoder"
        levels = ["c3", "c4", "c5"] if is_vit else list(options["backbone.levels"])
        _check_writable(options, levels, is_lite=is_lite)
        is_shared = options["head.decoder.design"] == "swiglu_shared"
        table = make_deimv2_table(
            len(levels),
            num_blocks=NUM_BLOCKS if is_vit else 0,
            num_shared=options["head.decoder.num_layers"] if is_shared else 0,
        )
        tensors = table.write(list_weights(detector, options)).tensors
        num_levels = LITE_LEVELS if is_lite else len(levels)
        tensors |= write_constants(options, detector.input_format.image_size, num_levels)
        if is_vit:
            tensors[DEIMV2_PERIODS] = make_periods()
        return Layout(tensors=tensors, file_name="deimv2.pth", wrap=("ema", "module"))


def _infer_backbone(tensors: LocatedTensors, num_levels: int, blocks: list[int]) -> tuple[str, dict[str, Any]]:
    """Infer the published size that is nearest, and the options of the backbone, by dotted key."""
    if not blocks:
        model = infer_hgnet(tensors)
        if num_levels > 1:
            levels = [f"c{6 - i}" for i in range(num_levels, 0, -1)]
            return "n", {"backbone.model": model, "backbone.levels": levels}
        if model not in _LITE:
            raise ValueError(f"its backbone is {model} with one level, and DEIMv2's are {', '.join(_LITE)}")
        return _LITE[model], {"backbone.model": model, "backbone.levels": ["c4"]}
    joined, stem = "backbone.fuse.0.conv.weight", "backbone.stem.begin.0.conv.weight"
    options, out = infer_vit_options(tensors), tensors.side(joined, ndim=4)
    channels = tensors.side(stem, ndim=4) if stem in tensors else 0
    inside = tensors.side(joined, 1, ndim=4) - 2 * channels
    return "s" if options["backbone.embed_dim"] is None else "m", {
        **options,
        "backbone.blocks": blocks,
        "backbone.stem_channels": channels,
        "backbone.out_channels": None if out == inside else out,
    }


def _check_writable(options: Mapping[str, Any], levels: list[str], *, is_lite: bool) -> None:
    """Check that their code has these options.

    Raises:
        ValueError: it has not, in one line.
    """
    needed = {name: (options[name], value) for name, value in _HEAD.items()}
    design, fusion = options["head.decoder.design"], options.get("neck.fusion", "elan_slim")
    needed["head.decoder.design"] = design, design if design in ("swiglu", "swiglu_shared") else "swiglu"
    if "backbone.blocks" in options:
        needed |= need_vit_options(options)
    else:
        expected = ["c4"] if is_lite else ["c3", "c4", "c5"][-len(levels) :]
        needed |= {
            "backbone.levels": (levels, expected),
            "backbone.output_stride": (options["backbone.output_stride"], 32),
        }
    if not is_lite:
        needed |= {name: (options[name], value) for name, value in _ENCODER.items()}
        needed["neck.fusion"] = fusion, fusion if fusion in SUMS else "elan_slim"
    check_options(needed)
