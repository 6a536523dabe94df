"""Options of a command, read by argparse, with errors in one line that suggest the nearest."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from boxwright.compose.parts import import_outside
from boxwright.weights.source_names import require_source

if TYPE_CHECKING:
    from boxwright_runtime.streaming import Threshold

MODEL_HELP = "a checkpoint, the folder of a run, hf:OWNER/NAME, or a file of weights of another project"

MODEL_OR_FILE_HELP = f"{MODEL_HELP}; or an exported file, .onnx or .xml"
"""Of commands that run a model, and a file that it was exported to in the same way."""

OVERRIDES_HELP = "Options of the model's recipe change it, where its files cannot say them: --head.decoder.num_heads 4"
"""Of commands that take a model and such options."""

NEARLY = 0.75
"""Likeness of a misspelled option to a real one, of 1, beyond which it can hardly be another."""


class CommandParser(argparse.ArgumentParser):
    """A parser of one command, ``boxwright <command>``.

    Where argparse prints the usage and exits, this raises ``ValueError``, which ``main`` turns into one line.

    Args:
        command: its name.
        description: what it does, for ``--help``.
    """

    def __init__(self, command: str, *, description: str) -> None:
        super().__init__(
            prog=f"boxwright {command}",
            description=description,
            # An abbreviation that works today is another option tomorrow.
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise ``ValueError`` for a wrong value or a missing argument."""
        raise ValueError(f"{message}; see `{self.prog} --help`")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read the options; unknown ones are an error that suggests the nearest.

        Models and data sets that are not there are an error too, before anything is imported that needs torch.
        """
        options, rest = self.parse_known_args(argv)
        if rest:
            self.reject(rest[0])
        require_typed_files(options)
        return options

    def reject(self, argument: str, more_options: Iterable[str] = ()) -> NoReturn:
        """Raise ``ValueError`` for an unknown argument, with the nearest of all options and ``more_options``."""
        if not argument.startswith("-"):
            self.error(f"unexpected argument '{argument}'")
        name = argument.partition("=")[0]
        options = [*self._option_string_actions, *more_options]
        # `--repeats` for `--neck.repeats`: people forget the part.
        near = [option for option in options if option.rpartition(".")[2] == name.lstrip("-")]
        near = near or _with_last_part_like(name, options) or difflib.get_close_matches(name, options, n=1, cutoff=0.5)
        self.error(f"unknown option {name}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def require_typed_files(options: argparse.Namespace) -> None:
    """Raise ``FileNotFoundError`` for a model or a data folder among the options that is not there."""
    typed = vars(options)
    # Results files may be compared with models; what reads them says that one is missing.
    models = [model for model in typed.get("models", ()) if Path(model).suffix.lower() != ".json"]
    for source in (typed.get("model"), typed.get("source"), *models):
        require_source(source)
    if (folder := typed.get("data")) is not None and not Path(folder).exists():
        raise FileNotFoundError(f"data folder {folder} does not exist")


def add_trust_argument(parser: CommandParser) -> None:
    """Add ``--trust MODULE``, which may be given several times."""
    parser.add_argument(
        "--trust",
        metavar="MODULE",
        action="append",
        default=[],
        help="import parts outside Boxwright that a file names from MODULE",
    )


def read_threshold(text: str) -> Threshold:
    """Read a least score."""
    try:
        return "tuned" if text == "tuned" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number between 0 and 1, or tuned, not {text!r}") from None


def import_trusted(modules: Iterable[str]) -> None:
    """Import the modules of ``--trust``: parts that a file names may come from modules that are imported already.

    Raises:
        ValueError: there is no such module, or it cannot be imported.
    """
    for module in modules:
        try:
            import_outside(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--trust {module}: no module named '{error.name}'; install it or run where it is"
            ) from error


def _with_last_part_like(name: str, options: Iterable[str]) -> list[str]:
    """Find the options of a section or a part that nearly have this name: ``--train.budget`` for ``--budjet``."""
    by_last: dict[str, list[str]] = {}
    for option in options:
        if "." in option:
            by_last.setdefault(option.rpartition(".")[2], []).append(option)
    near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), by_last, n=1, cutoff=NEARLY)
    return by_last[near[0]] if near else []
