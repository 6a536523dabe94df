"""Options that a layout cannot hold, all of them in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from boxwright.data.format_report import as_typed
from boxwright.detector import Detector
from boxwright.layers.block_options import BlockOptions
from boxwright.layers.resnet import BasicBlock, Bottleneck


def check_options(needed: Mapping[str, tuple[Any, Any]]) -> None:
    """Check options that the other project has in one form.

    Args:
        needed: by dotted name the value here, and the one there.

    Raises:
        ValueError: some differ; the line names them all.
    """
    wrong = {name: pair for name, pair in needed.items() if pair[0] != pair[1]}
    if wrong:
        raise ValueError("; ".join(f"{name} is {x}, and has to be {there} there" for name, (x, there) in wrong.items()))


def read_parts(detector: Detector, project: str, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Read the options of a detector's parts, in order, each with the part's ``name``.

    Args:
        detector: to write.
        project: that it is written for, for the message.
        names: of the parts that the project has.

    Raises:
        ValueError: the detector has other parts, or no recipe, in one line.
    """
    if detector.recipe is None:
        raise ValueError("this detector has no recipe, which says its sizes; build it from one")
    recipe = detector.recipe.to_dict()
    parts = [recipe["backbone"], *recipe["neck"], recipe["head"]]
    if (own := [part["name"] for part in parts]) != [*names]:
        expected = f"{', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"{project} has the parts {expected}; this detector has {', '.join(own)}")
    return parts


def block_options(backbone: nn.Module) -> dict[str, tuple[Any, Any]]:
    """List options of a ResNet's blocks that other projects have in one form: the value here, and the one there."""
    plain, needed = BlockOptions(), {}
    for block in backbone.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            for name in ("activation", "squeeze_excitation", "shortcut_activation"):
                if (here := getattr(block.options(), name)) != (there := getattr(plain, name)):
                    needed[f"backbone.block.{name}"] = here, there
    return needed


def ask_for_options(project: str, needed: Mapping[str, tuple[Any, Any]]) -> None:
    """Check options with which the same weights are written, but mean something else.

    Args:
        project: that has them in one form.
        needed: by dotted name the value here, and the one there.

    Raises:
        ValueError: some differ; the line says what to type for all of them.
    """
    typed = [f"--{name} {as_typed(there)}" for name, (here, there) in needed.items() if here != there]
    if typed:
        raise ValueError(
            f"{project} computes otherwise what these weights were made for; to write them as its own all the same, "
            f"give {' '.join(typed)}"
        )
