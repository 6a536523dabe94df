"""The project's own list of silent faults: texts of the source, and what would be wrong in their place."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "src" / "boxwright", ROOT / "src" / "boxwright_runtime")
LISTS = Path(__file__).with_name("faults")


@dataclass(frozen=True)
class Fault:
    """One fault that costs accuracy or data and ends in no error by itself.

    Args:
        area: name of the list that it is in.
        name: what is wrong with it, in a few words; unique.
        file: below ``src/boxwright``, or in ``boxwright_runtime/``.
        text: part of the file that occurs there once.
        replacement: what the fault has instead.
        tests: files or node ids below ``tests``, of which at least one fails.
    """

    area: str
    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file in the source."""
        return self.inside(ROOT / "src")

    def inside(self, source: Path) -> Path:
        """Return the file in a folder that holds the packages."""
        return source / self.file if self.file.startswith("boxwright_runtime/") else source / "boxwright" / self.file

    def plant(self, source: str) -> str:
        """Return the file's text with the fault.

        Raises:
            ValueError: the text is gone, or occurs more than once.
        """
        count = source.count(self.text)
        if count != 1:
            raise ValueError(f"{self.area}: {self.name}: {self.file} has its text {count} times, not once")
        return source.replace(self.text, self.replacement)


def read_faults(names: tuple[str, ...] = ()) -> list[Fault]:
    """Read the faults of all lists.

    Args:
        names: areas, files or parts of names that are meant; all where there are none.

    Raises:
        ValueError: nothing has such a name.
    """
    faults = [
        Fault(path.stem, row["name"], row["file"], row["text"], row["replacement"], tuple(row["tests"]))
        for path in sorted(LISTS.glob("*.toml"))
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    ]
    if not names:
        return faults
    chosen = [one for one in faults if any(name in (one.area, one.file) or name in one.name for name in names)]
    if not chosen:
        raise ValueError(f"no fault, file or area is named {', '.join(names)}")
    return chosen
