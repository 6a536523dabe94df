"""One name has one meaning: nothing public is defined at the top of two modules."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from source_files import parse, python_files, relative

CONTRACTS = {
    # Every command of the command line is a module with this function.
    "run": "cli/",
    # Every reader of an annotation format is a module with these functions.
    "recognizes": "data/readers/",
    "splits": "data/readers/",
    "read": "data/readers/",
    "unread_files": "data/readers/",
    "read_file": "data/readers/",
    # Every format that is written is a module with this function.
    "write": "data/writers/",
    "TASK": "data/readers/",
}
"""Names that a folder's contract prescribes for all of its modules, and where."""


def public_names(path: Path) -> set[str]:
    """Functions, classes, type aliases and constants that a module defines; what it imports is not counted."""
    names = set()
    for node in parse(path).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                stored = (one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
                names.update(one.id for one in stored if isinstance(one.ctx, ast.Store))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for path in python_files("src"):
        for name in public_names(path):
            if CONTRACTS.get(name, "no folder") not in relative(path):
                places[name].append(relative(path))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert not twice, "\n".join(f"{name}: {', '.join(files)}" for name, files in sorted(twice.items()))


def test_contracts_are_followed_somewhere() -> None:
    """An exception that nobody needs is taken out of the list."""
    for name, folder in CONTRACTS.items():
        files = [path for path in python_files("src") if folder in relative(path) and name in public_names(path)]
        assert len(files) > 1, f"{name} need not be excepted"
