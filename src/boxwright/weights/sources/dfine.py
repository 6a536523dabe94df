"""D-FINE of its authors, and DEIM's, whose files have the same names."""

from __future__ import annotations

from pathlib import PurePath

import torch
from torch import Tensor

from boxwright.detector import Detector
from boxwright.weights.projects.dfine import check_upper, count_levels, infer_dfine_options, read_dfine_options
from boxwright.weights.projects.dfine_names import make_dfine_table
from boxwright.weights.projects.rtdetr_authors import (
    IMAGE_SIZE,
    STRIDES,
    list_weights,
    make_constants,
    name_unnamed_classes,
    read_image_size,
    read_points,
)
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["AuthorsDFINE"]

_DEIM = "deim"
"""In the names of DEIM's released files, and of the recipes that our passports name; no tensor tells the activation."""


class AuthorsDFINE:
    """Source: Peng et al., D-FINE, ICLR 2025, names of Peterande/D-FINE 4a1f73a; Huang et al., DEIM, CVPR 2025, names
    of ShihuaHuang95/DEIM a9aa4ad.
    """

    title = "D-FINE and DEIM of their authors"
    example = "dfine_s_coco.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("encoder.input_proj.0.conv.weight", "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight")

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
        options |= read_points(files.tensors)
        if "decoder.up" in files.tensors:
            check_upper(files.tensors["decoder.up"])
        if "decoder.reg_scale" in files.tensors:
            options["head.bin_scale"] = float(files.tensors["decoder.reg_scale"])
        if "decoder.anchors" in files.tensors:
            options["input.image_size"] = read_image_size(files.tensors["decoder.anchors"], STRIDES[-num_levels:])
        else:
            assumptions.append(f"inputs of {IMAGE_SIZE} pixels (input.image_size)")
        if "head.denoising_classes.weight" not in located:
            options["head.denoising.num_queries"] = 0
        categories, note = name_unnamed_classes(len(located["head.classes.0.bias"]))
        return SourceModel(
            recipe=f"{'deim_' if is_deim else ''}dfine_{size}",
            overrides=options,
            categories=categories,
            table=table,
            assumptions=(*assumptions, note),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with the constants of its input size and of its bins."""
        options = read_dfine_options(detector)
        weights = list_weights(detector, options)
        num_levels = count_levels(weights)
        converted = make_dfine_table(num_levels).write(weights)
        constants = make_constants(options, detector.input_format.image_size, STRIDES[-num_levels:])
        constants |= _make_bins(options["head.bin_scale"])
        return Layout(tensors=converted.tensors | constants, file_name="dfine.pth", wrap=("ema", "module"))


def _make_bins(scale: float) -> dict[str, Tensor]:
    """Make the constants of the bins, which stand in two places there."""
    values = {"up": 0.5, "reg_scale": scale}
    return {f"decoder.{inside}{name}": torch.tensor([x]) for name, x in values.items() for inside in ("", "decoder.")}
