"""``boxwright``: find the command, run it, and turn errors into one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from boxwright import __version__
from boxwright.cli.terminal import any_encoding, join_lines, leave_closed_pipes, show
from boxwright.cli.torchrun import leave_word_to_first
from boxwright.compose.parts import import_attribute, unknown
from boxwright.cpu_quota import set_threading

COMMANDS = {
    "demo": "draw a data set, train on it, evaluate, predict and write a report",
    "check": "a data set before training: faults by name, what the network will see, a repaired copy",
    "train": "train a detector or a classifier on a data set",
    "eval": "measure a trained one on a data set: COCO metrics or accuracy, a table per class",
    "report": "a page on a trained one: errors by kind, the worst images, curves, origin",
    "compare": "models on the same images: differences with intervals, objects that one alone detects, costs",
    "tune-thresholds": "the least score of each class for a wanted F1, precision or recall, stored in the checkpoint",
    "predict": "find objects in images, draw and list them",
    "prelabel": "labels by a model, for people to correct: a data set, or a file for Label Studio or CVAT",
    "next": "the images that are worth labeling first",
    "serve": "a model behind an address, with a page to try it",
    "explain": "the pixels that a detection depends on, and how well that holds",
    "study": "variations of a recipe, each trained with several seeds, compared in a page and a table",
    "bench": "latency, throughput and memory of models and exported files, side by side",
    "replay": "a step of training whose loss was not finite: repeat it, and name the module that overflowed",
    "info": "size, classes and origin of a model; parameters and multiply-adds of a recipe, part by part",
    "convert": "a model to a checkpoint, or to the layout of another project",
    "export": "a model to one file for ONNX Runtime or OpenVINO, which takes bytes of images and gives boxes",
    "draw": "a data set of drawn shapes, for first experiments",
    "convert-data": "a data set to another format: COCO, Pascal VOC or YOLO",
    "tile": "cut the images of a data set into tiles, to train on",
    "crop": "cut the objects out of a data set, for a classifier",
    "list": "the backbones, necks, heads and recipes that there are",
}
"""The commands, and a summary of each; ``run(argv) -> exit status`` of ``boxwright/cli/<command>.py`` is imported on
demand."""

TRACEBACK_SWITCH = "BOXWRIGHT_TRACEBACK"

USAGE = "usage: boxwright COMMAND [options]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 done, 1 errors in checked data, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    set_threading(os.environ)
    with any_encoding():
        try:
            status = _run_or_tell(arguments)
            # Here rather than at exit, where a closed pipe could no longer be handled.
            sys.stdout.flush()
        except BrokenPipeError:  # The reader, e.g. `| head`, has seen enough.
            leave_closed_pipes()
            return 0
    return status


def _run_or_tell(arguments: list[str]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(arguments)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        show("boxwright: interrupted", error=True)
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get(TRACEBACK_SWITCH):
            raise
        leave_word_to_first()
        show(f"boxwright: error: {_one_line(error)}", error=True)
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        print(f"boxwright {__version__}")
        return 0
    if command not in COMMANDS:
        raise ValueError(unknown("command", command, COMMANDS, "commands"))
    run: Callable[[list[str]], int] = import_attribute(f"boxwright.cli.{command.replace('-', '_')}:run")
    return run(rest)


def _help() -> str:
    commands = "".join(f"  {name:14}{summary}\n" for name, summary in COMMANDS.items())
    return (
        f"{USAGE}\n\nObject detectors built from interchangeable parts.\n\ncommands:\n{commands}\n"
        "  boxwright COMMAND --help           options of a command\n"
        "  boxwright train RECIPE --help      and of every part of a recipe\n"
        f"  boxwright --version                {__version__}\n\n"
        f"{TRACEBACK_SWITCH}=1 in the environment shows where an error comes from.\n"
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,  # noqa: ARG001
    line: str | None = None,
) -> None:
    """Print our own warnings as notes to the user; those of libraries stay as they are."""
    if os.path.dirname(os.path.dirname(__file__)) in filename:
        show(f"note: {join_lines(str(message))}", error=True)
    else:
        show(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n"), error=True)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return join_lines(f"{error.filename}: {error.strerror}")
    return join_lines(str(error)) or type(error).__name__
