"""``boxwright convert``: a model from any source to a checkpoint, or to the layout of another project."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import MODEL_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show

if TYPE_CHECKING:
    from boxwright.workflows.convert import Conversion

_SHOWN = 3
"""Names of tensors in a line, of many."""


def run(argv: Sequence[str]) -> int:
    """Convert, and say what was taken; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.convert import convert

    conversion = convert(
        options.source,
        options.out,
        to=options.to,
        card=options.card,
        images=options.images or (),
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    show("\n".join(describe_conversion(conversion)))
    return 0


def describe_conversion(conversion: Conversion) -> list[str]:
    """Say in lines which tensors were taken and which were not, and what was written."""
    lines = [f"{conversion.source}: {conversion.taken} tensors taken, {len(conversion.skipped)} skipped"]
    by_reason: dict[str, list[str]] = {}
    for name, reason in conversion.skipped.items():
        by_reason.setdefault(reason, []).append(name)
    lines += [f"  {len(names)} skipped, {reason}: {_list(names)}" for reason, names in by_reason.items()]
    if conversion.left_out:
        lines.append(f"  {len(conversion.left_out)} have no place in {conversion.layout}: {_list(conversion.left_out)}")
    return [*lines, f"written as {conversion.layout} and read back: {conversion.out}"]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read what was typed: the options of the command, and changes of the model's recipe."""
    parser = CommandParser(
        "convert",
        description="Convert a model to a checkpoint of Boxwright, or to the layout of another project. What is "
        "written is read back and compared.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("source", metavar="SOURCE", help=MODEL_HELP)
    parser.add_argument("out", metavar="OUT", help="file, like model.safetensors, or a folder; nothing is overwritten")
    parser.add_argument(
        "--to", metavar="KIND", help="layout of another project: hf, torchvision, detr, ...; ours where left out"
    )
    parser.add_argument("--card", action="store_true", help="also write a model card, README.md, into the folder OUT")
    parser.add_argument("--images", metavar="FILE", nargs="+", help="for the card: drawn with what is found in them")
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    return parser.parse(own), overrides
