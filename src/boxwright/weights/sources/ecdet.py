"""ECDet and ECSeg of EdgeCrafter's authors: detectors on a small vision transformer, without and with masks."""

from __future__ import annotations

from typing import Any

from boxwright.detector import Detector
from boxwright.weights.projects.deformable import LocatedTensors, locate_tensors
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.dfine import (
    infer_decoder_options,
    infer_encoder_options,
    read_constants,
    write_constants,
)
from boxwright.weights.projects.ecdet_names import ECDET_MASKS, ECDET_PERIODS, ECDET_TOKEN, make_ecdet_table
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

__all__ = ["AuthorsECDet"]

_NUM_LEVELS = 3

_USUAL_BLOCKS = (10, 11)

_HIDDEN_RATIO = 4
"""Width of a hidden layer of the transformer's, in widths of the transformer."""

_FIXED = {
    "backbone.conv_patches": True,
    "backbone.num_windows": 1,
    "neck.0.scales": [2.0, 1.0, 0.5],
    "neck.1.variant": "E",
    "neck.1.fusion": "elan_slim",
    "neck.1.activation": "silu",
    "head.decoder.design": "lean",
    "head.decoder.reference_encoding": "deep",
    "head.decoder.activation": "silu",
    "head.decoder.offset_scale": 0.5,
}
"""Options that they have in one form."""


class AuthorsECDet:
    """Source: EdgeCrafter, 2026; names of Intellindust-AI-Lab/EdgeCrafter 706d037, ecdetseg."""

    title = "ECDet and ECSeg of EdgeCrafter's authors"
    example = "ecdet_s.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has(ECDET_TOKEN, "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        assumptions = ["8 attention heads in the encoder (neck.1.num_heads)"]
        blocks = read_blocks(files.config.get("backbone"), _USUAL_BLOCKS, assumptions)
        projects = count_indices(files.tensors, "backbone.projector.{n}.conv.weight") > 1
        table = make_ecdet_table(blocks[-1] + 1, projects_every_level=projects)
        tensors = locate_tensors(table, files)
        vit = infer_vit_options(tensors)
        _check_hidden_layers(tensors)
        constants, assumed = read_constants(files.tensors, _NUM_LEVELS)
        options: dict[str, Any] = {
            **vit,
            "backbone.blocks": blocks,
            "neck.0.out_channels": tensors.side("necks.0.project.c3.conv.weight", ndim=4) if projects else None,
            **infer_encoder_options(tensors, slot="neck.1", path="necks.1"),
            **infer_decoder_options(tensors),
            **constants,
            **read_queries(files.config.get("decoder")),
            "head.masks": files.has(f"{ECDET_MASKS}bias"),
        }
        categories, note = name_unnamed_classes(tensors.side("head.classes.0.weight"))
        return SourceModel(
            recipe="ecdet_s",
            overrides=options,
            categories=categories,
            table=table,
            assumptions=(*assumptions, *assumed, note),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with the constants of its input size and of its bins."""
        parts = read_parts(detector, "ECDet", ("vit", "averaged_pyramid", "hybrid_encoder", "dfine"))
        options = dotted_options(dict(zip(("backbone", "neck.0", "neck.1", "head"), parts, strict=True)))
        options["neck.0.scales"] = list(options["neck.0.scales"])
        check_options({**need_vit_options(options), **{name: (options[name], x) for name, x in _FIXED.items()}})
        table = make_ecdet_table(NUM_BLOCKS, projects_every_level=options["neck.0.out_channels"] is not None)
        tensors = table.write(list_weights(detector, options)).tensors
        tensors |= write_constants(options, detector.input_format.image_size, _NUM_LEVELS)
        tensors[ECDET_PERIODS] = make_periods()
        return Layout(tensors=tensors, file_name="ecdet.pth", wrap=("ema", "module"))


def _check_hidden_layers(tensors: LocatedTensors) -> None:
    """Refuse the transformer of size X, whose hidden layers are wider.

    Raises:
        ValueError: it has them, in one line.
    """
    hidden, width = (tensors.side("backbone.vit.body.model.blocks.0.mlp.fc1.weight", dim) for dim in (0, 1))
    if hidden != _HIDDEN_RATIO * width:
        raise ValueError(
            f"hidden layers of its transformer are {hidden} wide, as in size X, and have to be {_HIDDEN_RATIO * width}"
        )
