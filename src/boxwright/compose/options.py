"""Options of a class: read from its signature and docstring, values checked against them by jsonargparse."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from boxwright.compose.parts import unknown

FROM_THE_WIRING = frozenset({"in_spec", "num_classes"})
"""Arguments that a part is given by what stands before it and by the data; never options."""

_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", types.NoneType: "null"}


@dataclass(frozen=True)
class Option:
    """One constructor argument that a recipe may set.

    Args:
        name: of the argument.
        annotation: its type.
        default: what it is where a recipe says nothing.
        help: its lines in the docstring.
    """

    name: str
    annotation: Any
    default: Any
    help: str

    def expected(self) -> str:
        """The type in words."""
        return describe_type(self.annotation)


def options_of(part: type[Any]) -> dict[str, Option]:
    """Options of a class by name, in the order of its signature.

    Raises:
        ValueError: an argument without a default or a plain type. Recipes are data: a type that is filled by
            importing something would let the recipe in a checkpoint run code.
    """
    # Here, not above: a command that parses nothing need not wait for it.
    from docstring_parser import parse as parse_docstring

    hints = typing.get_type_hints(part.__init__)
    help_of = {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for text in (part.__init__.__doc__, inspect.getdoc(part))
        for parameter in parse_docstring(text or "").params
    }
    options = {}
    for name, parameter in inspect.signature(part).parameters.items():
        if name in FROM_THE_WIRING:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{part.__name__}: argument '{name}' must have a default to be an option")
        try:
            describe_type(hints[name])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{part.__name__}: argument '{name}' cannot be an option; annotate it as bool, int, float, "
                "str, None, Literal, or a tuple, Sequence, list or Mapping of these"
            ) from error
        options[name] = Option(name, hints[name], parameter.default, help_of.get(name, ""))
    return options


def parse_options(
    part: type[Any], values: Mapping[str, Any], *, owner: str, label: Callable[[str], str]
) -> dict[str, Any]:
    """Check and convert options; those that are not given take their defaults.

    Args:
        part: the class whose constructor takes them.
        values: as a YAML file or the command line gives them; text is converted to what is asked for.
        owner: how messages call ``part``.
        label: how messages call the place of an option, given its name.

    Returns:
        Keyword arguments for ``part``, all of them.

    Raises:
        ValueError: an unknown option or a value of the wrong type, in one line.
    """
    options = options_of(part)
    for name in values:
        if name not in options:
            raise ValueError(f"{label(name)}: {unknown(f'{owner} option', name, options, 'options')}")
    return _parse(part, values, options, label)


def describe_type(annotation: Any) -> str:
    """A plain type in words, e.g. ``list of integer, or null``.

    Raises:
        TypeError: not a plain type.
    """
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(describe_type(argument) for argument in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"list [{', '.join(describe_type(argument) for argument in arguments)}]"
    if origin in (tuple, list, Sequence):
        return f"list of {describe_type(arguments[0])}"
    if origin in (dict, Mapping) and arguments[0] is str:
        return f"mapping of text to {describe_type(arguments[1])}"
    raise TypeError(f"{annotation} is not a plain type")


def _parse(
    part: type[Any], values: Mapping[str, Any], options: Mapping[str, Option], label: Callable[[str], str]
) -> dict[str, Any]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part, as_group=False, skip=set(FROM_THE_WIRING))
    # One by one: the parser's own messages neither name the option reliably nor fit on a line.
    parsed = {name: option.default for name, option in options.items()}
    for name, value in values.items():
        got = "null" if value is None else repr(value)
        problem = f"{label(name)}: expected {options[name].expected()}; got {got}"
        # The parser lets None pass everywhere.
        if value is None and not _allows_none(options[name].annotation):
            raise ValueError(problem)
        try:
            parsed[name] = parser.parse_object({name: _split_list(options[name], value)})[name]
        except ArgumentError as error:
            raise ValueError(problem) from error
    return parsed


def _allows_none(annotation: Any) -> bool:
    return types.NoneType in typing.get_args(annotation)


def _split_list(option: Option, value: Any) -> Any:
    """``c3,c4`` for a list, as people type it; brackets and everything else are left to the parser."""
    candidates = [option.annotation, *typing.get_args(option.annotation)]
    is_list = any(typing.get_origin(candidate) in (tuple, list, Sequence) for candidate in candidates)
    if not is_list or not isinstance(value, str) or value.startswith("["):
        return value
    return f"[{value}]" if value != "null" else value
