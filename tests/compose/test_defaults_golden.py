"""The default of every option of every part, which nobody sees change where recipes and tests give their own.

If a change is meant, write the file anew with ``python tests/compose/test_defaults_golden.py`` and review what it says.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from boxwright.compose.parts import FOLDERS, Folder, find_part, list_parts

GOLDEN = Path(__file__).parents[1] / "golden" / "defaults"


def flatten(name: str, value: Any) -> Iterator[str]:
    """A line for each number, also of options within options."""
    if is_dataclass(value) and not isinstance(value, type):
        for key, inner in asdict(value).items():
            yield from flatten(f"{name}.{key}", inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(f"{name}.{key}", inner)
    else:
        yield f"{name}: {value!r}"


def defaults(folder: Folder) -> list[str]:
    """The defaults of all parts of a folder."""
    return [
        line
        for part in list_parts(folder)
        for option, parameter in inspect.signature(find_part(folder, part)).parameters.items()
        if parameter.default is not parameter.empty
        for line in flatten(f"{part}.{option}", parameter.default)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_default_of_every_part(folder: Folder) -> None:
    assert defaults(folder) == (GOLDEN / f"{folder}.txt").read_text().splitlines()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for one in FOLDERS:
        (GOLDEN / f"{one}.txt").write_text("\n".join(defaults(one)) + "\n")
