"""D-FINE of its authors, and DEIM's, whose files have the same names."""

from __future__ import annotations

from pathlib import PurePath

from boxwright.detector import Detector
from boxwright.weights.projects.dfine import (
    count_levels,
    infer_dfine_options,
    read_constants,
    read_dfine_options,
    write_constants,
)
from boxwright.weights.projects.dfine_names import make_dfine_table
from boxwright.weights.projects.rtdetr_authors import list_weights, name_unnamed_classes
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["AuthorsDFINE"]

_DEIM = "deim"
"""In the names of DEIM's released files, and of the recipes that our passports name; no tensor tells the activation."""

_GATED = "decoder.decoder.layers.0.swish_ffn.w12.weight"
"""A name in the files of DEIMv2, whose other names are mostly the same."""


class AuthorsDFINE:
    """Source: Peng et al., D-FINE, ICLR 2025, names of Peterande/D-FINE 4a1f73a; Huang et al., DEIM, CVPR 2025, names
    of ShihuaHuang95/DEIM a9aa4ad.
    """

    title = "D-FINE and DEIM of their authors"
    example = "dfine_s_coco.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = "encoder.input_proj.0.conv.weight", "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight"
        return files.has(*names) and not files.has(_GATED)

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        num_levels = 3 if "encoder.input_proj.2.conv.weight" in files.tensors else 2
        table = make_dfine_table(num_levels)
        located = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
        size, options = infer_dfine_options(located)
        assumptions = ["8 attention heads in the encoder (neck.num_heads)"]
        recipe = files.passport.recipe if files.passport is not None else None
        is_deim = any(_DEIM in name for name in (PurePath(files.origin.source).name.lower(), recipe or ""))
        options["head.decoder.activation"] = "silu" if is_deim else "relu"
        assumptions.append(
            "SiLU, as the name of the file, or its passport, says that it is DEIM's (head.decoder.activation)"
            if is_deim
            else "ReLU, as D-FINE has it; a file of DEIM's has silu (head.decoder.activation)"
        )
        constants, assumed = read_constants(files.tensors, num_levels)
        options |= constants
        categories, note = name_unnamed_classes(len(located["head.classes.0.bias"]))
        return SourceModel(
            recipe=f"{'deim_' if is_deim else ''}dfine_{size}",
            overrides=options,
            categories=categories,
            table=table,
            assumptions=(*assumptions, *assumed, note),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with the constants of its input size and of its bins."""
        options = read_dfine_options(detector)
        weights = list_weights(detector, options)
        num_levels = count_levels(weights)
        tensors = make_dfine_table(num_levels).write(weights).tensors
        tensors |= write_constants(options, detector.input_format.image_size, num_levels)
        return Layout(tensors=tensors, file_name="dfine.pth", wrap=("ema", "module"))
