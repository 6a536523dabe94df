"""Files of fonts on this machine, those for plain text first."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_ENDINGS = (".ttf", ".otf", ".ttc", ".otc")

_STYLES = (
    "bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif", "math", "display", "variable",
    "[wght", "-vf"
)  # fmt: skip
"""Words in names of files whose letters are less legible on images; those of variable fonts are often thin ones."""

_WITHOUT_LETTERS = (
    "lastresort", "adobeblank", "fallback", "emoji", "symbol", "wingd", "webd", "dingbat", "marlett"
)  # fmt: skip
"""Words in names of fonts that draw frames, nothing at all, color images or symbols for characters."""


@cache
def list_font_files() -> tuple[str, ...]:
    """List the fonts in the folders that the operating system knows, and those of matplotlib where it is installed."""
    files = {str(path) for folder in _folders() for path in _fonts_below(folder)}
    # Asked for without importing it, which takes a second. Its other fonts are for formulas.
    if (matplotlib := find_spec("matplotlib")) is not None and matplotlib.origin is not None:
        file = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        files |= {str(file)} if file.is_file() else set()
    return tuple(sorted(files, key=_rank))


def _folders() -> Iterator[Path]:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")
        yield Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"), "Microsoft", "Windows", "Fonts")
    elif sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts")
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        own = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        yield from (Path(folder, "fonts") for folder in [own, *shared.split(":")] if folder)
        yield home / ".fonts"
    yield Path(sys.prefix, "fonts")


def _fonts_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            lower = name.lower()
            if lower.endswith(_ENDINGS) and not any(word in lower for word in _WITHOUT_LETTERS):
                yield Path(parent, name)


def _rank(file: str) -> tuple[int, str, str]:
    name = Path(file).name.lower()
    return sum(word in name for word in _STYLES), name, file
