"""Name to class. The folder is the registry, and this is the only place that imports by name.

``fpn`` among the necks is ``boxwright/necks/fpn.py`` and the one module class in its ``__all__``;
``package.module:Class`` names a part outside by the same door. Listing imports neither the parts nor torch.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Collection, Iterable
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Literal

Folder = Literal["backbones", "necks", "heads"]
FOLDERS: tuple[Folder, ...] = ("backbones", "necks", "heads")

_PACKAGE = Path(__file__).parents[1]


def list_parts(folder: Folder) -> list[str]:
    """List the names of the parts in a folder, in alphabetical order. Imports none of them."""
    return sorted(path.stem for path in (_PACKAGE / folder).glob("*.py") if not path.stem.startswith("_"))


def part_summary(folder: Folder, name: str) -> str:
    """Read the first line of the docstring of a part's module, without importing it."""
    source = (_PACKAGE / folder / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0]


def check_part_name(folder: Folder, name: str) -> str:
    """Return the name with underscores. Imports nothing; a part outside is not looked for.

    Raises:
        ValueError: no such part.
    """
    plain, choices = name if ":" in name else name.replace("-", "_"), list_parts(folder)
    if ":" not in name and plain not in choices:
        raise ValueError(f"{unknown(folder[:-1], plain, choices, folder)}; a part outside is package.module:Class")
    return plain


def find_part(folder: Folder, name: str, *, trusted: Collection[str] | None = None) -> type[Any]:
    """Find the class that a name stands for.

    Args:
        folder: which kind of part.
        name: a file of that folder without its suffix, or ``package.module:Class`` for a part outside.
        trusted: modules and packages that may be imported for a part outside, besides those that are imported
            already. None trusts all: right for names that the user typed, wrong for names that came with a file.

    Raises:
        ValueError: no such part, or what has this name is not one.
    """
    if ":" in name:
        return _outside_part(folder, name, trusted)
    name = check_part_name(folder, name)
    module = import_module(f"boxwright.{folder}.{name}")
    classes: list[type[Any]] = [part for part in (vars(module)[key] for key in module.__all__) if _is_part(part)]
    if len(classes) != 1:
        raise ValueError(
            f"boxwright/{folder}/{name}.py: __all__ must name one torch.nn.Module class, not {len(classes)}"
        )
    return classes[0]


def import_attribute(target: str) -> Any:
    """Import the object that ``package.module:name`` names."""
    module_name, _, name = target.partition(":")
    return getattr(import_module(module_name), name)


def import_outside(module_name: str) -> Any:
    """Import a module outside Boxwright that the user trusts.

    One that is not installed is looked for in the current folder, which is not on the import path: this module alone is
    imported from there.

    Raises:
        ModuleNotFoundError: there is none of this name.
        ValueError: it cannot be imported, for whatever reason.
    """
    try:
        top = module_name.partition(".")[0]
        if top and top not in sys.modules and find_spec(top) is None:
            _import_from_folder(top, os.getcwd())
        return import_module(module_name)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # It is any program.
        raise ValueError(f"module {module_name} cannot be imported: {type(error).__name__}: {error}") from error


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Find the choice that a misspelled name most likely means; none where nothing is near."""
    return difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)


def unknown(what: str, name: str, choices: Iterable[str], plural: str) -> str:
    """Say in one line that a name is unknown, suggest the nearest and list what there is."""
    choices = list(choices)
    near = nearest(name, choices)
    suggestion = f"; did you mean '{near[0]}'?" if near else ";"
    return f"unknown {what} '{name}'{suggestion} {plural}: {', '.join(choices) or 'none'}"


def _outside_part(folder: Folder, name: str, trusted: Collection[str] | None) -> type[Any]:
    module_name, _, class_name = name.partition(":")
    if trusted is not None and not _is_trusted(module_name, trusted):
        raise ValueError(
            f"{folder[:-1]} '{name}' is code outside Boxwright, which no file may import by itself: "
            f"import {module_name} first, or name it as trusted (--trust {module_name})"
        )
    try:
        part: type[Any] = getattr(import_outside(module_name), class_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{folder[:-1]} '{name}': no module named '{error.name}'; install it or run where it is"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{folder[:-1]} '{name}': module {module_name} has no '{class_name}'") from error
    if not _is_part(part):
        raise ValueError(f"{folder[:-1]} '{name}' is not a torch.nn.Module class")
    return part


def _is_trusted(module_name: str, trusted: Collection[str]) -> bool:
    """Tell whether a module is imported already, or is trusted, or is in a package that is."""
    names = module_name.split(".")
    return module_name in sys.modules or any(".".join(names[: i + 1]) in trusted for i in range(len(names)))


def _import_from_folder(name: str, folder: str) -> None:
    """Import the module or package of this name in a folder; do nothing if there is none."""
    spec = PathFinder.find_spec(name, [folder])
    if spec is None:
        return
    sys.modules[name] = module = module_from_spec(spec)
    try:
        if spec.loader is not None:  # None for a folder without __init__.py
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _is_part(candidate: object) -> bool:
    # Here, not above: listing the parts must not wait for torch.
    from torch import nn

    return isinstance(candidate, type) and issubclass(candidate, nn.Module)
