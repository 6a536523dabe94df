"""The files that the rules of this repository are about, and what the rules read from them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "boxwright"
KERNELS = PACKAGE / "ops" / "deformable" / "triton_kernels.py"
"""Kernels take every stride and size as an argument of its own, and are one long function each."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module


def python_files(*folders: str) -> list[Path]:
    """Files of these folders of the repository, in alphabetical order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    """Path from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions_of(path: Path) -> Iterator[Function]:
    """All functions and methods of a file, nested ones too."""
    for node in ast.walk(parse(path)):
        if isinstance(node, Function):
            yield node


def documented_nodes_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, name and docstring of the module, its classes and functions, as far as they have one."""
    for node in ast.walk(parse(path)):
        if isinstance(node, Documented) and (docstring := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), getattr(node, "name", path.stem), docstring
