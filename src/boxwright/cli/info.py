"""``boxwright info``: how large a recipe's detector is and what an image costs, part by part."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boxwright.cli.arguments import CommandParser
from boxwright.cli.recipe_arguments import parse_recipe_command
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import Recipe
from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.workflows.operation_counts import OPERATIONS


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
    counted = OPERATIONS if command.options.count == "operations" else None
    facts = measure(command.recipe, command.options.num_classes, counted)
    for note in command.notes:
        print(note, file=sys.stderr)
    if command.options.json:
        print(json.dumps(facts, indent=2))
    else:
        _print_table(facts, command.options.recipe, command.recipe["input"]["image_size"])
    return 0


def measure(recipe: Recipe, num_classes: int, counted: Mapping[Any, Any] | None = None) -> dict[str, Any]:
    """Parameters and GMAC of a resolved recipe, in total and per part.

    GMAC is half of what ``torch.utils.flop_counter`` counts for one image of the recipe's image size, in the
    graph that was published, so that figures compare with those of papers. ``deployed_gmac`` is what prediction
    runs: branches and norms fused, and nothing computed that is not used. Neither has masks, of which there are as
    many as objects are found.

    Args:
        recipe: with a name and options for every part.
        num_classes: how many classes.
        counted: other counts per operator, as ``OPERATIONS``.
    """
    categories = [Category(i, f"class_{i}") for i in range(num_classes)]
    detector = build_resolved(recipe, categories=categories).eval()
    size = recipe["input"]["image_size"]
    fused = detector.fold()
    if fused.needs_masks and hasattr(fused.head, "count_as_published"):
        fused.head.count_as_published = True  # type: ignore[assignment]
    deployed = _flops(fused, size, counted).get("Global", 0)
    for module in detector.modules():
        if hasattr(module, "count_as_published"):
            module.count_as_published = True  # type: ignore[assignment]
    flops = _flops(detector, size, counted)
    parts = [
        {"slot": slot, "name": name, **_num_params(part), "gmac": flops.get(f"Detector.{path}", 0) / 2e9}
        for slot, name, path, part in _slots(detector, recipe)
    ]
    return {
        **_num_params(detector),
        "gmac": flops.get("Global", 0) / 2e9,
        "deployed_gmac": deployed / 2e9,
        "parts": parts,
    }


def _flops(detector: Detector, size: int, counted: Mapping[Any, Any] | None) -> dict[str, int]:
    """Floating-point operations by the path of the module, and under ``Global`` of all."""
    counter = FlopCounterMode(display=False, custom_mapping=dict(counted or {}))
    # The math form of attention is two matrix products, which every release counts; fused forms it may not.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        detector(torch.zeros(1, 3, size, size))
    return {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


def _slots(detector: Detector, recipe: Recipe) -> list[tuple[str, str, str, nn.Module]]:
    """Slot, name, path in the detector and module of every part, in the order of the data."""
    addresses = ["neck"] if len(recipe["neck"]) == 1 else [f"neck.{i}" for i in range(len(recipe["neck"]))]
    return [
        ("backbone", recipe["backbone"]["name"], "backbone", detector.backbone),
        *(
            (address, entry["name"], f"necks.{i}", detector.necks[i])
            for i, (address, entry) in enumerate(zip(addresses, recipe["neck"], strict=True))
        ),
        ("head", recipe["head"]["name"], "head", detector.head),
    ]


def _num_params(module: nn.Module) -> dict[str, int]:
    params = list(module.parameters())
    return {
        "params": sum(param.numel() for param in params),
        "trainable_params": sum(param.numel() for param in params if param.requires_grad),
    }


def _print_table(facts: dict[str, Any], name: str, image_size: int) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("slot", "total")
    table.add_column("part", name)
    table.add_column("parameters", f"{facts['params']:,}", justify="right")
    table.add_column("trainable", f"{facts['trainable_params']:,}", justify="right")
    table.add_column(f"GMAC at {image_size} x {image_size}", f"{facts['gmac']:.3f}", justify="right")
    for part in facts["parts"]:
        table.add_row(
            part["slot"],
            part["name"],
            f"{part['params']:,}",
            f"{part['trainable_params']:,}",
            f"{part['gmac']:.3f}",
        )
    Console().print(table)
