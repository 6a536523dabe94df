"""Structure of an RF-DETR: inferred from tensors and what files state beside them, and read from a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from boxwright.detector import Detector
from boxwright.weights.projects.deformable import LocatedTensors, read_number
from boxwright.weights.projects.detr import count_indices, weights_without_counters
from boxwright.weights.projects.rfdetr_names import ENCODER, MASKS, PROJECTOR, make_rfdetr_table
from boxwright.weights.projects.written_options import check_options, read_parts
from boxwright.weights.table import Table

_MODELS = {384: "vit_small_patch14_dinov2", 768: "vit_base_patch14_dinov2"}
"""Models of timm by their width."""

_USUAL_WINDOWS = {14: (4, (2, 5, 8, 11)), 12: (2, (3, 6, 9, 12)), 16: (2, (3, 6, 9, 12))}
"""Windows along each side, and the stages whose maps are taken, by the size of a patch."""

_HEADS_OF_BOTH = (8, 16)
"""Heads of self-attention and of sampling of every released model but the former large one."""

_RECIPES = {(2, 384): "rfdetr_n", (3, 512): "rfdetr_s", (4, 576): "rfdetr_m", (4, 704): "rfdetr_l"}
"""Recipes by the number of decoder layers and the size of images that the table of positions is for."""


class RFDETRStructure(NamedTuple):
    """The nearest recipe, what differs from it, by dotted key, the number of classes, and the table of names."""

    recipe: str
    overrides: dict[str, Any]
    num_classes: int
    table: Table


def infer_rfdetr(tensors: Mapping[str, Tensor], stated: Mapping[str, Any], notes: list[str]) -> RFDETRStructure:
    """Infer the structure.

    Args:
        tensors: by their names.
        stated: what no tensor tells, by the names of the authors' arguments.
        notes: lines about what is assumed are appended.

    Raises:
        ValueError: a variant that there is no counterpart of here, in one line.
    """
    if count_indices(tensors, "backbone.0.projector.stages.{n}.{**}") > 1:
        raise ValueError("RF-DETR of several levels has no counterpart here; those of one level do")
    located, masks = LocatedTensors(tensors), any(name.startswith(MASKS) for name in tensors)
    backbone, size = _infer_backbone(located, stated, notes)
    num_groups = max(count_indices(tensors, "transformer.enc_output.{n}.{*}"), 1)
    decoder = _infer_decoder(located, stated, notes)
    hidden_dim = located.side("query_feat.weight", 1)
    overrides = {
        **backbone,
        **decoder,
        "neck.out_channels": hidden_dim,
        "neck.num_blocks": count_indices(tensors, f"{PROJECTOR}0.m.{{n}}.{{**}}"),
        "head.hidden_dim": hidden_dim,
        "head.num_queries": located.side("query_feat.weight") // num_groups,
        "head.supervision.num_groups": num_groups,
        "head.masks": masks,
        "input.image_size": read_number(stated, "resolution", size),
    }
    if masks:
        overrides["head.max_detections"] = overrides["head.num_queries"]
    near = (decoder["head.decoder.num_layers"], backbone["backbone.table_size"])
    recipe = "rfdetr_s_seg" if masks else _RECIPES.get(near, "rfdetr_n")
    table = make_rfdetr_table(num_groups, backbone["backbone.blocks"][-1] + 1, masks=masks)
    return RFDETRStructure(recipe, overrides, located.side("class_embed.weight"), table)


def read_rfdetr_parts(detector: Detector) -> list[Mapping[str, Any]]:
    """Read the options of the parts of a detector that is written: backbone, neck and head.

    Raises:
        ValueError: another kind of detector, or options that RF-DETR does not have, in one line.
    """
    backbone, neck, head = read_parts(detector, "RF-DETR", ("vit", "multi_scale_projector", "lwdetr"))
    check_options(
        {
            "backbone.final_norm": (backbone["final_norm"], True),
            "backbone.bare": (backbone["bare"], False),
            "backbone.model": (backbone["model"] in _MODELS.values(), True),
            "neck.scales": (list(neck["scales"]), [1.0]),
            "neck.norm": (neck["norm"], "layer"),
            "head.hidden_dim": (head["hidden_dim"], neck["out_channels"]),
            "head.decoder.activation": (head["decoder"]["activation"], "relu"),
        }
    )
    return [backbone, neck, head]


def write_rfdetr(detector: Detector, parts: list[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Bring the tensors of a detector to their names.

    Args:
        detector: to write.
        parts: the options of its parts.
    """
    backbone, _, head = parts
    groups, masks = head["supervision"]["num_groups"], head["masks"]
    table = make_rfdetr_table(groups, backbone["blocks"][-1] + 1, masks=masks)
    return table.write(weights_without_counters(detector)).tensors


def _infer_backbone(tensors: LocatedTensors, args: Mapping[str, Any], notes: list[str]) -> tuple[dict[str, Any], int]:
    """Infer the backbone's options from shapes, and what they do not tell from arguments, or from released models.

    Returns:
        the options, and the usual size of images.
    """
    patches = tensors[f"{ENCODER}embeddings.patch_embeddings.projection.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    if width not in _MODELS:
        raise ValueError(f"its backbone is {width} wide, and only those of {' and '.join(map(str, _MODELS))} are known")
    table = round((tensors.side(f"{ENCODER}embeddings.position_embeddings", 1, ndim=3) - 1) ** 0.5) * patch
    windows, stages = _USUAL_WINDOWS.get(patch, _USUAL_WINDOWS[16])
    stated = args.get("out_feature_indexes"), read_number(args, "num_windows")
    if isinstance(stated[0], Sequence) and stated[0] and all(isinstance(i, int) and i > 0 for i in stated[0]):
        stages = tuple(stated[0])
    if stated[1] is None:
        notes.append(f"{windows} x {windows} windows, which no tensor tells (backbone.num_windows)")
    windows = stated[1] or windows
    last = stages[-1] - 1
    options = {
        "backbone.model": _MODELS[width],
        "backbone.patch_size": patch,
        "backbone.table_size": table,
        "backbone.blocks": [stage - 1 for stage in stages],
        "backbone.num_windows": windows,
        "backbone.global_blocks": [stage for stage in stages if stage <= last] if windows > 1 else [],
    }
    return options, table if patch != 14 else 560


def _infer_decoder(tensors: LocatedTensors, args: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    heads, sampling = read_number(args, "sa_nheads"), read_number(args, "ca_nheads")
    if heads is None or sampling is None:
        heads, sampling = _HEADS_OF_BOTH
        notes.append(
            f"{heads} heads of self-attention and {sampling} of sampling, which no tensor tells "
            "(head.decoder.num_heads, head.decoder.num_sampling_heads)"
        )
    layer = "transformer.decoder.layers.0"
    samples = tensors.side(f"{layer}.cross_attn.attention_weights.weight")
    return {
        "head.decoder.num_layers": count_indices(tensors, "transformer.decoder.layers.{n}.{**}"),
        "head.decoder.num_heads": heads,
        "head.decoder.num_sampling_heads": sampling,
        "head.decoder.num_points": max(samples // sampling, 1),
        "head.decoder.feedforward_dim": tensors.side(f"{layer}.linear1.weight"),
    }
