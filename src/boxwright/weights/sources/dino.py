"""DINO of its authors, IDEA-Research/DINO, on a ResNet: files with ``model`` and ``args``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from boxwright.detector import Detector
from boxwright.weights.projects.deformable import (
    USUAL_HEADS,
    LocatedTensors,
    assume_classes,
    find_first_level,
    locate_tensors,
    read_number,
)
from boxwright.weights.projects.detr import count_indices, infer_resnet, weights_without_counters
from boxwright.weights.projects.dino_names import make_dino_table
from boxwright.weights.projects.rtdetr_names import OWN
from boxwright.weights.projects.written_options import block_options, check_options, read_parts
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Skip

__all__ = ["AuthorsDINO"]

_LABELS = "head.denoising_classes.weight"


class AuthorsDINO:
    """Source: Zhang et al., DINO, ICLR 2023; names of IDEA-Research/DINO faa8520."""

    title = "DINO of its authors, on a ResNet"
    example = "checkpoint0011_4scale.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("transformer.tgt_embed.weight", "label_enc.weight", "backbone.0.body.conv1.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        first_level = find_first_level(files, "input_proj")
        table = make_dino_table(first_level, count_indices(files.tensors, "transformer.decoder.layers.{n}.{**}"))
        tensors = locate_tensors(table, files)
        num_classes, notes = tensors.side("head.classes.0.weight"), list[str]()
        options = _infer_options(tensors, first_level, files.arguments, notes)
        if tensors.side(_LABELS) != num_classes + 1:
            # More rows than classes: nothing says which of them are in use, and prediction needs none.
            notes.append(f"its {tensors.side(_LABELS)} label embeddings are not one for each class: left out")
            rows = tuple(row for row in table.rows if "label_enc.{*}" not in row.their_names)
            skips = Skip("label_enc.weight", "label embeddings of another number of classes"), *table.skips
            table = replace(table, rows=rows, skips=skips, own=OWN)
            options["head.denoising.num_queries"] = 0
        categories, note = assume_classes(num_classes)
        return SourceModel(
            recipe="dino_r50_5scale" if first_level == 2 else "dino_r50",
            overrides=options,
            categories=categories,
            table=table,
            assumptions=[*notes, *note],
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        backbone, neck, head = read_parts(detector, "DINO", ("resnet", "deformable_encoder", "dino"))
        needed = {
            "head.hidden_dim": (head["hidden_dim"], neck["hidden_dim"]),
            "head.decoder.activation": (head["decoder"]["activation"], "relu"),
            "neck.across_levels": (neck["across_levels"], True),
            "neck.position_temperature": (neck["position_temperature"], 20.0),
            "neck.position_shift": (neck["position_shift"], 0.0),
            "backbone.norm_eps": (backbone["norm_eps"], 1e-5),
        }
        check_options({**block_options(detector.backbone), **needed})
        table = make_dino_table(int(backbone["levels"][0][1:]), head["decoder"]["num_layers"])
        tensors = table.write(weights_without_counters(detector)).tensors
        return Layout(tensors=tensors, file_name="checkpoint.pth", wrap=("model",))


def _infer_options(
    tensors: LocatedTensors, first_level: int, args: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Infer sizes from shapes; the number of heads is in the arguments, or assumed."""
    num_levels, hidden_dim = (tensors.side("necks.0.level_embedding", dim) for dim in (0, 1))
    heads = read_number(args, "nheads")
    if heads is None:
        heads = USUAL_HEADS
        notes.append(f"{heads} attention heads, which no tensor tells (neck.num_heads, head.decoder.num_heads)")
    options: dict[str, Any] = {
        **{f"backbone.{option}": value for option, value in infer_resnet(tensors).items() if option != "name"},
        "backbone.levels": [f"c{level}" for level in range(first_level, 6)],
        "neck.num_levels": num_levels,
        "neck.hidden_dim": hidden_dim,
        "head.hidden_dim": hidden_dim,
        "head.num_queries": tensors.side("head.contents.weight"),
    }
    for option, part, attention in (
        ("neck", "necks.0", "self_attention"),
        ("head.decoder", "head", "cross_attention"),
    ):
        samples = tensors.side(f"{part}.layers.0.{attention}.attention_weights.weight")
        options |= {
            f"{option}.num_layers": count_indices(tensors, f"{part}.layers.{{n}}.{{**}}"),
            f"{option}.feedforward_dim": tensors.side(f"{part}.layers.0.feed_forward.linear1.weight"),
            f"{option}.num_heads": heads,
            f"{option}.num_points": samples // (num_levels * heads),
        }
    return options
