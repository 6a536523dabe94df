"""Names of sources of weights as users type them. Nothing is read, and nothing is imported that needs torch."""

from __future__ import annotations

from pathlib import Path

OPENERS = ("hf", "torchvision", "timm")
"""Kinds of sources that are downloaded, before the colon."""

_FORMS = (
    "the folder of a run, a file of weights, a folder in Hugging Face layout, hf:OWNER/NAME, torchvision:NAME, "
    "or timm:NAME"
)
"""Forms of a source, for messages."""

_EXPORTED = (".onnx", ".xml")
"""Suffixes of exported files, in lower case; the module that reads them imports PIL."""


def require_source(source: str | Path | None) -> None:
    """Raise ``FileNotFoundError`` for a file or folder that is not there, in one line that says what a model is.

    Args:
        source: as for ``boxwright.load``, or an exported file, whose reader says itself what is missing; None for
            nothing to check.
    """
    is_downloaded = isinstance(source, str) and source.partition(":")[0] in OPENERS and ":" in source
    if source is None or is_downloaded or Path(source).suffix.lower() in _EXPORTED:
        return
    if not Path(source).expanduser().exists():
        raise missing_source(source)


def missing_source(source: str | Path) -> FileNotFoundError:
    """Make the error about a source that is not there."""
    return FileNotFoundError(f"{source}: no such file or folder{_suggest(str(source))}; a model is {_FORMS}")


def _suggest(source: str) -> str:
    """Say how a name is written that looks like one of a repository, or an address."""
    if source.startswith(("http://", "https://")):
        return " (addresses are not opened: download the file first)"
    parts = source.split("/")
    return f" (the model of the hub is hf:{source})" if len(parts) == 2 and all(parts) and "." not in parts[0] else ""
