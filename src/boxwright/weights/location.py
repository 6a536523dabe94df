"""Sources of weights as users name them: a run, a file, a folder, or a model in another project's repository."""

from __future__ import annotations

from pathlib import Path

from boxwright.checkpoints import BEST, FORMAT, LAST, find_checkpoint
from boxwright.tensor_files import peek_strings
from boxwright.weights.files import read_source_files
from boxwright.weights.source import SourceFiles

FORMS = "the folder of a run, a file of weights, a folder in Hugging Face layout"
"""Forms of a source, for messages."""


def open_source(source: str | Path) -> SourceFiles | Path:
    """Find and read the files of a model of another project; or find the checkpoint, if it is of ours.

    Args:
        source: the folder of a run, a checkpoint, a file of weights, or a folder in Hugging Face layout.

    Returns:
        Files of another project, or the path of a checkpoint of ours.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not weights, or damaged ones; in one line.
    """
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in (BEST, LAST)):
        return find_checkpoint(path)
    if path.is_file() and is_own(path):
        return path
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; a model is {FORMS}")
    return read_source_files(path)


def is_own(path: Path) -> bool:
    """Tell whether a file is a checkpoint of ours, without reading its weights."""
    return peek_strings(path) == ["format", FORMAT]
