"""Options of parts as their source states them, against those of the imported classes."""

from __future__ import annotations

import pytest

from boxwright.compose.options import leaves, options_of
from boxwright.compose.outlines import outline_part
from boxwright.compose.parts import FOLDERS, Folder, find_part, list_parts

PARTS = [(folder, name) for folder in FOLDERS for name in list_parts(folder)]


@pytest.mark.parametrize(("folder", "name"), PARTS)
def test_names_and_types(folder: Folder, name: str) -> None:
    """Every option of every part is told by the source alone, with its type, in the order of the signature."""
    expected = leaves(options_of(find_part(folder, name)))
    outline = leaves(outline_part(folder, name))
    assert [(one, option.annotation) for one, option in outline] == [(one, o.annotation) for one, o in expected]
