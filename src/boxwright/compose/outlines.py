"""Options of parts read from their source, so that help and a slip are answered before anything that needs torch.

An outline knows names, groups, types, defaults and help. What it cannot tell, as a type of another package, it leaves
to the check of the imported class, which every value passes too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from boxwright.compose.options import FROM_THE_WIRING, Option, argument_help, leaves
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

UNREAD = object()
"""Stands for a default that the source does not tell."""


class Outline(NamedTuple):
    """A class with options.

    Args:
        summary: first line of its docstring.
        options: by name.
        size_option: of a backbone that is made for one size of the network input, see ``contracts.SizedBackbone``.
    """

    summary: str
    options: Mapping[str, Option]
    size_option: str | None = None

    @property
    def is_complete(self) -> bool:
        """True where the source has told every type and every default."""
        return not any(option.annotation is Any or option.default is UNREAD for _, option in leaves(self.options))


class _Group:
    """Stands for the type of a group of options."""


def outline_part(folder: Folder, name: str) -> Outline:
    """Outline a part of the package.

    Args:
        folder: of the part.
        name: of its file.
    """
    module = _parse(f"boxwright.{folder}.{name}")
    (public,) = ast.literal_eval(_assigned(module.body, "__all__") or "()")
    definition = _class(module, public)
    docstring = ast.get_docstring(definition) or ""
    methods = (node for node in definition.body if isinstance(node, ast.FunctionDef))
    constructor = next((node for node in methods if node.name == "__init__"), None)
    options = {} if constructor is None else dict(_constructor_options(module, constructor, docstring))
    size_option = _assigned(definition.body, "size_option")
    return Outline(
        docstring.partition("\n")[0], options, None if size_option is None else ast.literal_eval(size_option)
    )


def outline_dataclass(module_name: str, name: str) -> Outline:
    """Outline a dataclass of options in a module of the package."""
    module = _parse(module_name)
    definition = _class(module, name)
    return Outline((ast.get_docstring(definition) or "").partition("\n")[0], _group(module, definition))


def _constructor_options(
    module: ast.Module, constructor: ast.FunctionDef, docstring: str
) -> Iterator[tuple[str, Option]]:
    signature = constructor.args
    arguments = [*signature.args, *signature.kwonlyargs]
    first = [None] * (len(signature.args) - len(signature.defaults))
    defaults = [*first, *signature.defaults, *signature.kw_defaults]
    fields = [(one.arg, one.annotation, default) for one, default in zip(arguments, defaults, strict=True)]
    texts = argument_help(ast.get_docstring(constructor) or "") | argument_help(docstring)
    return _options(module, fields[1:], texts)


def _options(
    module: ast.Module, fields: Iterable[tuple[str, ast.expr | None, ast.expr | None]], texts: Mapping[str, str]
) -> Iterator[tuple[str, Option]]:
    """List options of fields: name, annotation, default."""
    for name, annotation, default in fields:
        if name in FROM_THE_WIRING:
            continue
        kind = Any if annotation is None else _resolve(module, annotation)
        if isinstance(kind, Mapping):
            yield name, Option(name, _Group, UNREAD, texts.get(name, ""), _with_defaults(module, kind, default))
        else:
            yield name, Option(name, kind, _read_default(module, default), texts.get(name, ""))


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
    value = _assigned(home.body, annotation.id)
    return Any if value is None else _resolve(home, value)


def _group(module: ast.Module, definition: ast.ClassDef) -> Any:
    """List the options of a dataclass: those of the class that it extends, then its own."""
    texts = argument_help(ast.get_docstring(definition) or "")
    options: dict[str, Option] = {}
    for base in definition.bases:
        inherited = _resolve(module, base)
        if not isinstance(inherited, Mapping):
            return Any
        options |= {name: replace(option, help=texts.get(name, option.help)) for name, option in inherited.items()}
    lines = [line for line in definition.body if isinstance(line, ast.AnnAssign)]
    fields = ((ast.unparse(line.target), line.annotation, line.value) for line in lines)
    return options | dict(_options(module, fields, texts))


def _with_defaults(module: ast.Module, group: Mapping[str, Option], instance: ast.expr | None) -> Mapping[str, Option]:
    """Give a group the defaults of an instance: a call of its class with keywords, or the name of one."""
    home: ast.Module | None = module
    while isinstance(instance, ast.Name) and home is not None:
        home, instance = _constant(home, instance.id)
    if not isinstance(instance, ast.Call) or instance.args or home is None:
        return {name: replace(option, default=UNREAD) for name, option in group.items()}
    typed = {keyword.arg: keyword.value for keyword in instance.keywords}
    return {name: _with_default(home, option, typed.get(name)) for name, option in group.items()}


def _with_default(module: ast.Module, option: Option, value: ast.expr | None) -> Option:
    if value is None:
        return option
    if option.group is not None:
        return replace(option, group=_with_defaults(module, option.group, value))
    return replace(option, default=_read_default(module, value))


def _read_default(module: ast.Module, value: ast.expr | None) -> Any:
    """Compute a value of literals alone, or that of a constant that is one."""
    home: ast.Module | None = module
    while isinstance(value, ast.Name) and home is not None:
        home, value = _constant(home, value.id)
    if value is None or any(isinstance(node, ast.Name | ast.Attribute | ast.Call) for node in ast.walk(value)):
        return UNREAD
    return eval(compile(ast.Expression(value), "default", "eval"), {})


def _constant(module: ast.Module, name: str) -> tuple[ast.Module | None, ast.expr | None]:
    """Find the module of the package that assigns a constant, and the value."""
    home = _home(module, name)
    return home, None if home is None else _assigned(home.body, name)


def _home(module: ast.Module, name: str) -> ast.Module | None:
    """Find the module of the package that defines a name, which may be this one."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            return _parse(node.module) if (node.module or "").startswith("boxwright.") else None
    return module


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def _assigned(body: Sequence[ast.stmt], name: str) -> ast.expr | None:
    """Find the value that statements assign to a name; None where none does."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node.value
        if isinstance(node, ast.Assign):
            (target,) = node.targets
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for one, value in zip(names, values, strict=True):
                if ast.unparse(one) == name:
                    return value
    return None


@cache
def _parse(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
