"""Options of parts read from their source, so that a slip is answered before anything is imported that needs torch.

An outline knows names, groups and types. What it cannot tell, as a type of another package, it leaves to the check of
the imported class, which every value passes too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from boxwright.compose.options import FROM_THE_WIRING, Option
from boxwright.compose.parts import Folder

_ROOT = Path(__file__).parents[2]

_TYPES = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "Literal": Literal,
    "Sequence": Sequence,
    "Mapping": Mapping,
    "tuple": tuple,
    "list": list,
    "dict": dict,
}


class _Group:
    """Stands for the type of a group of options."""


def outline_part(folder: Folder, name: str) -> Mapping[str, Option]:
    """List the options of a part of the package by name; the annotation is ``Any`` where the source does not tell it.

    Args:
        folder: of the part.
        name: of its file.

    Returns:
        The options, without defaults and help; none where the class has no constructor of its own.
    """
    module = _parse(f"boxwright.{folder}.{name}")
    (public,) = ast.literal_eval(_assigned(module, "__all__"))
    methods = (node for node in _class(module, public).body if isinstance(node, ast.FunctionDef))
    constructor = next((node for node in methods if node.name == "__init__"), None)
    if constructor is None:
        return {}
    arguments = [*constructor.args.args[1:], *constructor.args.kwonlyargs]
    return dict(_options(module, ((one.arg, one.annotation) for one in arguments)))


def _options(module: ast.Module, fields: Iterable[tuple[str, ast.expr | None]]) -> Iterator[tuple[str, Option]]:
    for name, annotation in fields:
        if name not in FROM_THE_WIRING:
            kind = Any if annotation is None else _resolve(module, annotation)
            group = kind if isinstance(kind, Mapping) else None
            yield name, Option(name, _Group if group else kind, None, "", group)


def _resolve(module: ast.Module, annotation: ast.expr) -> Any:
    """Find what an annotation means: a type, a mapping of options for a group, or ``Any``."""
    if not isinstance(annotation, ast.Name):
        names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
        types = {name: _resolve(module, ast.Name(name)) for name in names}
        if any(kind is Any or isinstance(kind, Mapping) for kind in types.values()):
            return Any
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), types)
    if annotation.id in _TYPES:
        return _TYPES[annotation.id]
    home = _home(module, annotation.id)
    if home is None:
        return Any
    for node in home.body:
        if isinstance(node, ast.ClassDef) and node.name == annotation.id:
            return _group(home, node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == annotation.id:
            return _resolve(home, node.value)
    return Any


def _group(module: ast.Module, definition: ast.ClassDef) -> Any:
    """List the options of a dataclass: those of the class that it extends, then its own."""
    options: dict[str, Option] = {}
    for base in definition.bases:
        inherited = _resolve(module, base)
        if not isinstance(inherited, Mapping):
            return Any
        options |= inherited
    lines = [line for line in definition.body if isinstance(line, ast.AnnAssign)]
    return options | dict(_options(module, ((ast.unparse(line.target), line.annotation) for line in lines)))


def _home(module: ast.Module, name: str) -> ast.Module | None:
    """Find the module of the package that defines a name, which may be this one."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            return _parse(node.module) if (node.module or "").startswith("boxwright.") else None
    return module


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def _assigned(module: ast.Module, name: str) -> ast.expr:
    return next(
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]
    )


@cache
def _parse(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
