"""Plain types: their names in words, and values of files and command lines converted to them.

Text is converted to what is asked for; everything else has to be of the type already. Nothing is imported or run: a
recipe, whoever wrote it, is data.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from boxwright.compose.yaml_text import parse_yaml

_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", types.NoneType: "null"}

_BOOLEANS = {"true": True, "false": False}

_LARGEST = 2**63
"""Whole numbers are smaller, as those of torch are."""

_UNIONS = (typing.Union, types.UnionType)


def describe_type(annotation: Any) -> str:
    """Describe a plain type in words, e.g. ``list of integer, or null``.

    Raises:
        TypeError: not a plain type.
    """
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin in _UNIONS:
        return ", or ".join(describe_type(argument) for argument in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"list [{', '.join(describe_type(argument) for argument in arguments)}]"
    if origin in (tuple, list, Sequence):
        return f"list of {describe_type(arguments[0])}"
    if origin in (dict, Mapping) and arguments[0] is str:
        return f"mapping of text to {describe_type(arguments[1])}"
    raise TypeError(f"{annotation} is not a plain type")


def convert_value(value: Any, annotation: Any) -> Any:
    """Convert a value to a plain type.

    Args:
        value: as YAML, JSON or the command line gives it; lists may be text with commas: ``c3,c4``.
        annotation: the type.

    Raises:
        ValueError: it is not a value of the type.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return _choice(value, arguments)
    if origin in _UNIONS:
        return _first_that_fits(value, arguments)
    if origin is tuple and Ellipsis not in arguments:
        items = _items(value)
        if len(items) != len(arguments):
            raise ValueError(value)
        return tuple(convert_value(item, argument) for item, argument in zip(items, arguments, strict=True))
    if origin in (tuple, list, Sequence):
        converted = [convert_value(item, arguments[0]) for item in _items(value)]
        return converted if origin is list else tuple(converted)
    if origin in (dict, Mapping):
        content = _from_text(value) if isinstance(value, str) else value
        if not isinstance(content, Mapping):
            raise ValueError(value)
        return {convert_value(key, arguments[0]): convert_value(item, arguments[1]) for key, item in content.items()}
    return _scalar(value, annotation)


def plain(value: Any) -> Any:
    """Convert to what JSON and YAML know: mappings, lists, no tuples and no dataclasses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _scalar(value: Any, annotation: Any) -> Any:
    if isinstance(value, str) and annotation is not str:
        if annotation is types.NoneType:
            fits = value == "null"
            value = None
        elif annotation is bool:
            fits = value.lower() in _BOOLEANS
            value = _BOOLEANS.get(value.lower())
        else:
            return _scalar(annotation(value), annotation)
        if not fits:
            raise ValueError(value)
    if annotation is float and type(value) is int:
        if abs(value) > sys.float_info.max:
            raise ValueError("a whole number that is too large for a number")
        return float(value)
    # bool is a kind of int to Python, and not to people.
    if type(value) is not annotation or (annotation is int and abs(value) >= _LARGEST):
        raise ValueError(value)
    return value


def _choice(value: Any, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if (type(value), value) == (type(choice), choice) or value == str(choice):
            return choice
    raise ValueError(value)


def _first_that_fits(value: Any, annotations: Sequence[Any]) -> Any:
    # Text last: everything that is typed is text.
    for annotation in sorted(annotations, key=lambda one: (one is str, one is not types.NoneType)):
        try:
            return convert_value(value, annotation)
        except ValueError:
            continue
    raise ValueError(value)


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        value = _from_text(value if value.startswith("[") else f"[{value}]")
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    return value


def _from_text(text: str) -> Any:
    """Read the structure of YAML; scalars remain text."""
    try:
        return parse_yaml(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(text) from error
