"""``boxwright info``: size and cost of a detector, part by part; of a model with weights also where it comes from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import MODEL_OR_FILE_HELP, CommandParser, add_trust_argument
from boxwright.cli.recipe_arguments import parse_recipe_command, take_overrides
from boxwright.cli.terminal import is_piped, json_target, show, write_json
from boxwright.compose.recipes import names_model
from boxwright.files import check_target
from boxwright.weights.source_names import require_source
from boxwright.workflows.detector_cost import NUM_CLASSES, DetectorCost, read_stored_cost
from boxwright_runtime.printable_names import printable_text

if TYPE_CHECKING:
    from boxwright.passport import Passport
    from boxwright.structures import Category
    from boxwright.workflows.exported_facts import FileFacts
    from boxwright.workflows.info import ModelFacts
    from boxwright_runtime.input_format import InputFormat


def run(argv: Sequence[str]) -> int:
    """Print the table, and write JSON where it was asked for; return the exit status."""
    own, overrides = take_overrides(argv)
    typed, rest = _make_parser(with_model=True).parse_known_args([one for one in own if one not in ("-h", "--help")])
    if target := json_target(typed.json):
        check_target(target)
    wants_help = "-h" in own or "--help" in own
    if typed.recipe is not None and names_model(typed.recipe):
        parser = _make_parser(with_model=True)
        if wants_help:
            parser.print_help()
            return 0
        if rest:
            parser.reject(rest[0])
        require_source(typed.recipe)
        return _tell_model(typed, overrides)
    if typed.num_classes is not None and typed.num_classes < 1:
        raise ValueError(f"--num-classes is at least 1, not {typed.num_classes}; see `boxwright info --help`")
    if not wants_help and (stored := _read_stored(typed, rest, overrides)):
        _show(stored, typed)
        return 0
    command = parse_recipe_command(_make_parser(), argv, sections=("input",))
    options = command.options
    from boxwright.workflows.info import info

    cost = info(command.recipe, num_classes=options.num_classes, count=options.count)
    for note in command.notes:
        show(note, error=True)
    _show(cost, options)
    return 0


def _read_stored(typed: argparse.Namespace, rest: Sequence[str], overrides: Mapping[str, str]) -> DetectorCost | None:
    """Return the stored cost, which needs no torch; None where something is typed that it depends on."""
    own = (*rest, *overrides, *typed.trust)
    if own or typed.recipe is None or typed._image_size or typed.count != "products":
        return None
    return read_stored_cost(typed.recipe) if typed.num_classes in (None, NUM_CLASSES) else None


def _show(facts: DetectorCost | FileFacts, options: argparse.Namespace) -> None:
    """Print a table, and what there is to know of a model or a file; write JSON where it was asked for."""
    target = json_target(options.json)
    if not is_piped(target):
        if not isinstance(facts, DetectorCost):
            show("\n".join(describe_file(facts)))
        else:
            _print_table(facts, options.recipe)
            if facts.model is not None:
                show("\n".join(describe_model(facts.model)))
    write_json(target, facts.to_json())


def _make_parser(*, with_model: bool = False) -> CommandParser:
    parser = CommandParser(
        "info",
        description="Parameters, and multiply-adds for one image in evaluation mode:\n"
        "convolutions, linear layers and attention, as torch.utils.flop_counter counts them.\n"
        "Instead of a recipe, a model (a checkpoint, the folder of a run, hf:OWNER/NAME, a file of weights):\n"
        "also its classes, its preprocessing, the options that its weights need, and where it comes from.\n"
        "Of an exported file (.onnx, .xml): what it says of itself.",
    )
    parser.add_argument(
        "--count",
        choices=["products", "operations"],
        default="products",
        help="operations: also sums, biases, swish, means and pooling, as TensorFlow's profiler and EfficientDet's "
        "paper (default: products)",
    )
    parser.add_argument("--num-classes", metavar="K", type=int, help="classes of a recipe (default: 80)")
    parser.add_argument("--json", metavar="FILE", help="also write it as JSON; - prints that instead of the table")
    if with_model:
        add_trust_argument(parser)
        parser.add_argument("recipe", metavar="MODEL", nargs="?", help=MODEL_OR_FILE_HELP)
        parser.add_argument("--image-size", metavar="N", dest="_image_size", help="the same as --input.image_size N")
    return parser


def _tell_model(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Print what there is to know of a model."""
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.info import info

    facts = info(
        options.recipe,
        num_classes=options.num_classes,
        count=options.count,
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    _show(facts, options)
    return 0


def describe_model(model: ModelFacts) -> list[str]:
    """Describe a model in lines: preprocessing, classes, origin and history."""
    from boxwright.data.format_report import as_typed

    lines = _describe_input(model.input_format)
    lines += ["options that the weights need:", *(f"  {name} {as_typed(x)}" for name, x in model.options.items())]
    lines += _describe_classes(model.categories)
    if model.skipped:
        lines.append(f"{len(model.skipped)} tensors of the source are skipped: " + ", ".join(model.skipped))
    if (tuning := model.tuning) is not None:
        thresholds = tuning.by_name(model.categories)["thresholds"].items()
        lines.append(f"thresholds for {tuning.target}: " + ", ".join(f"{name} {value:g}" for name, value in thresholds))
    return lines + _describe_history(model.passport)


def describe_file(facts: FileFacts) -> list[str]:
    """Describe an exported file in lines: form, preprocessing, classes, origin and history."""
    own = facts.metadata
    runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[facts.kind]
    inputs = {"bytes": "bytes of RGB images of any size", "float": "network inputs, and sizes of the images"}
    outputs = "boxes, scores, labels" + (", masks" if own.masks else "")
    lines = [
        f"{facts.path}: {own.task} in {runtime}, exported by Boxwright {own.version}",
        f"{own.precision}, operators {own.ops}, {facts.num_bytes / 1e6:,.1f} MB",
        f"input: {inputs[own.profile]}; output: {outputs}",
    ]
    if own.float32_nodes:
        lines.append(f"{len(own.float32_nodes)} nodes stay in float32: " + ", ".join(own.float32_nodes))
    lines += _describe_input(own.input_format) + _describe_classes(own.categories)
    if own.thresholds is not None:
        lines.append("thresholds: " + ", ".join(f"{name} {value:g}" for name, value in own.thresholds.items()))
    return lines if facts.passport is None else lines + _describe_history(facts.passport)


def _describe_input(input_format: InputFormat) -> list[str]:
    from boxwright.data.format_report import describe_format

    return ["preprocessing:", *(f"  {line}" for line in describe_format(input_format))]


def _describe_classes(categories: Sequence[Category]) -> list[str]:
    return [f"{len(categories)} classes: " + ", ".join(category.name for category in categories)]


def _describe_history(passport: Passport) -> list[str]:
    from boxwright.model_card import describe_passport

    return ["passport:", *describe_passport(passport)]


def _print_table(cost: DetectorCost, name: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from boxwright.cli.console import TerminalConsole

    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("slot", "total")
    table.add_column("part", Text(printable_text(name)))
    table.add_column("parameters", f"{cost.params:,}", justify="right")
    table.add_column("trainable", f"{cost.trainable_params:,}", justify="right")
    table.add_column(f"GMAC at {cost.image_size} x {cost.image_size}", f"{cost.gmac:.3f}", justify="right")
    for part in cost.parts:
        numbers = (f"{part.params:,}", f"{part.trainable_params:,}", f"{part.gmac:.3f}")
        table.add_row(part.slot, Text(printable_text(part.name)), *numbers)
    TerminalConsole().print(table)
