"""``boxwright info``: how large a recipe's detector is and what an image costs, part by part."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser
from boxwright.cli.recipe_arguments import parse_recipe_command

if TYPE_CHECKING:
    from boxwright.workflows.info import DetectorCost


def run(argv: list[str]) -> int:
    """Print the table, or JSON."""
    parser = CommandParser(
        "info",
        description="Parameters, and multiply-adds for one image in evaluation mode:\n"
        "convolutions, linear layers and attention, as torch.utils.flop_counter counts them.",
    )
    parser.add_argument(
        "--count",
        choices=["products", "operations"],
        default="products",
        help="operations: also sums, biases, swish, means and pooling, as TensorFlow's profiler and EfficientDet's "
        "paper (default: products)",
    )
    parser.add_argument("--num-classes", metavar="K", type=int, default=80, help="classes (default: 80)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    command = parse_recipe_command(parser, argv, sections=("input",))
    if command.options.num_classes < 1:
        parser.error(f"--num-classes is at least 1, not {command.options.num_classes}")
    from boxwright.workflows.info import info

    cost = info(command.recipe, num_classes=command.options.num_classes, count=command.options.count)
    for note in command.notes:
        print(note, file=sys.stderr)
    if command.options.json:
        print(json.dumps(cost.to_json(), indent=2))
    else:
        _print_table(cost, command.options.recipe)
    return 0


def _print_table(cost: DetectorCost, name: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("slot", "total")
    table.add_column("part", name)
    table.add_column("parameters", f"{cost.params:,}", justify="right")
    table.add_column("trainable", f"{cost.trainable_params:,}", justify="right")
    table.add_column(f"GMAC at {cost.image_size} x {cost.image_size}", f"{cost.gmac:.3f}", justify="right")
    for part in cost.parts:
        table.add_row(part.slot, part.name, f"{part.params:,}", f"{part.trainable_params:,}", f"{part.gmac:.3f}")
    Console().print(table)
