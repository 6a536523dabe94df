"""Options of a class: read from its signature and docstring, values checked against them.

An option is an argument of a plain type, or a group: an argument annotated with a frozen dataclass, whose fields are
options again. Recipes write a group as a mapping, command lines and messages name its options with a dot.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import yaml

from boxwright.compose.parts import nearest
from boxwright.compose.values import convert_value, describe_type
from boxwright.compose.yaml_text import parse_yaml

LONGEST_VALUE = 200
"""Letters of a value in a message."""

FROM_THE_WIRING = frozenset({"in_spec", "num_classes"})
"""Arguments that a part gets from the part before it and from the data; never options."""


@dataclass(frozen=True)
class Option:
    """One constructor argument that a recipe may set.

    Args:
        name: of the argument.
        annotation: its type.
        default: its value where a recipe says nothing.
        help: its lines in the docstring.
        group: its own options, where it is a group; None where it is a plain value.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    group: Mapping[str, Option] | None = None

    def describe(self) -> str:
        """Describe the values that it takes."""
        if self.group is not None:
            return f"a mapping of options ({', '.join(self.group)})"
        return describe_type(self.annotation)


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Names of options in messages.

    Args:
        owner: the part or section.
        address: where its options are in a recipe: ``head``, ``neck.1``, ``train``.
        source: the recipe that the values come from; empty where that is nothing to speak of.
        overridden: options by dotted name whose values the user typed, beside that recipe.
        renamed: options of earlier releases, and their names now, both dotted.
        renamed_values: likewise values of options, by the option's address.
    """

    owner: str
    address: str
    source: str = ""
    overridden: frozenset[str] = field(default_factory=frozenset)
    renamed: Mapping[str, str] = field(default_factory=dict)
    renamed_values: Mapping[str, Mapping[Hashable, str]] = field(default_factory=dict)

    def label(self, dotted: str) -> str:
        """Name an option, or the owner where ``dotted`` is empty; with the source of its value."""
        label = f"{self.address}.{dotted}" if dotted else self.address
        return label if self._is_typed(dotted) or not self.source else f"{self.source}: {label}"

    def _is_typed(self, dotted: str) -> bool:
        """Tell whether the user typed the option, its group, or something in it."""
        within = f"{dotted}." if dotted else ""
        return any(
            name == dotted or name.startswith(within) or dotted.startswith(f"{name}.") for name in self.overridden
        )


def options_of(part: type[Any]) -> Mapping[str, Option]:
    """List the options of a class by name, in the order of its signature.

    Raises:
        ValueError: an argument without a default or a plain type. Recipes are data: a type that is filled by
            importing something would let the recipe in a checkpoint run code.
    """
    return _options_of(cast(Hashable, part))


@cache
def _options_of(key: Hashable) -> Mapping[str, Option]:
    part = cast(type[Any], key)
    try:
        hints = typing.get_type_hints(part.__init__)
    except (NameError, TypeError) as error:  # of a class that is no part
        raise ValueError(f"{part.__name__}: the types of its arguments cannot be read: {error}") from error
    texts: dict[str, str] = {}
    for base in reversed(part.__mro__):
        constructor = base.__dict__.get("__init__")
        texts |= argument_help(constructor.__doc__ or "" if constructor else "")
        texts |= argument_help(inspect.cleandoc(base.__doc__ or ""))
    options = {}
    for name, parameter in inspect.signature(part).parameters.items():
        if name in FROM_THE_WIRING:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{part.__name__}: argument '{name}' must have a default to be an option")
        annotation: Any = hints.get(name)
        default = parameter.default
        group = _group(annotation, default) if is_group(annotation) else None
        if group is None:
            try:
                describe_type(annotation)
            except TypeError as error:
                raise ValueError(
                    f"{part.__name__}: argument '{name}' cannot be an option; annotate it as bool, int, float, "
                    "str, None, Literal, a tuple, Sequence, list or Mapping of these, or a frozen dataclass of these"
                ) from error
        options[name] = Option(name, annotation, default, texts.get(name, ""), group)
    return types.MappingProxyType(options)


def is_group(annotation: Any) -> bool:
    """Tell whether an argument of this type is a group of options: a frozen dataclass."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def leaves(options: Mapping[str, Option], prefix: str = "") -> Iterator[tuple[str, Option]]:
    """Iterate over all options that are plain values, those of groups too, by dotted name."""
    for name, option in options.items():
        if option.group is None:
            yield prefix + name, option
        else:
            yield from leaves(option.group, f"{prefix}{name}.")


def parse_options(
    part: type[Any], values: Mapping[str, Any], naming: Naming, *, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Check and convert options; those without a value take their defaults.

    Args:
        part: the class whose constructor takes them.
        values: options by name, those of groups as mappings or by dotted name.
        naming: names for messages.
        overrides: values that replace these, likewise.

    Returns:
        Keyword arguments for ``part``, all of them.

    Raises:
        ValueError: an unknown option, a value of the wrong type, or one that a group refuses, in one line.
    """
    options = options_of(part)
    flat = _flatten(options, values, naming) | _flatten(options, overrides or {}, naming)
    return _build(options, flat, naming)


def check_typed_options(options: Mapping[str, Option], values: Mapping[str, Any], naming: Naming) -> None:
    """Check names and plain values of options; one of the type ``Any`` takes all values.

    Raises:
        ValueError: an unknown option, or a value of the wrong type, in one line.
    """
    by_name = dict(leaves(options))
    for dotted, value in _flatten(options, values, naming).items():
        if by_name[dotted].annotation is not Any:
            _convert(by_name[dotted], value, naming, dotted)


def flat_values(
    options: Mapping[str, Option], values: Mapping[str, Any], naming: Naming, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Check and convert the values of plain options, as ``parse_options`` does, without constructing any group.

    Returns:
        Values by dotted name; the default where there is none.

    Raises:
        ValueError: an unknown option, or a value of the wrong type, in one line.
    """
    given = _flatten(options, values, naming) | _flatten(options, overrides, naming)
    return {
        dotted: _convert(option, given[dotted], naming, dotted) if dotted in given else option.default
        for dotted, option in leaves(options)
    }


def expand_short_names(
    options: Mapping[str, Option], values: Mapping[str, Any], renamed: Mapping[str, str], address: str
) -> dict[str, Any]:
    """Write the whole name of options of groups that were typed without their group: ``seed`` for ``runtime.seed``.

    A name that several groups have, or that is one of an earlier release, stays as it is, to be refused with what it
    may mean.

    Raises:
        ValueError: an option is there under both names.
    """
    grouped: dict[str, list[str]] = {}
    for dotted, _ in leaves(options):
        grouped.setdefault(dotted.rpartition(".")[2], []).append(dotted)
    expanded: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        # ``name`` is of too many things to be guessed.
        is_other = name in options or name == "name" or renamed.get(name, name).rpartition(".")[2] != name
        names = [] if is_other else grouped.get(name, [])
        whole = names[0] if len(names) == 1 else name
        if whole in expanded:
            raise ValueError(f"{address}.{whole}: given twice, once as {address}.{whole.rpartition('.')[2]}; give one")
        expanded[whole] = value
    return expanded


def construct(part: type[Any], naming: Naming, options: Mapping[str, Any]) -> Any:
    """Construct a group or section of parsed options.

    Raises:
        ValueError: it refuses them; the message begins with the address.
    """
    return _construct(part, options, naming, "")


def argument_help(docstring: str) -> dict[str, str]:
    """Read the ``Args:`` of a docstring in Google style: text by argument, in one line each."""
    section = re.search(r"^( *)Args:\n(.*?)(?=^\1\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if section is None:
        return {}
    indent = f"{section[1]}    "
    arguments = re.split(rf"^{indent}(\w+): ", section[2], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(arguments[::2], arguments[1::2], strict=True)}


def _group(annotation: type[Any], default: Any) -> Mapping[str, Option]:
    """List the options of a group, whose defaults are those of the owner's default instance."""
    if not getattr(annotation, "__dataclass_params__").frozen or not isinstance(default, annotation):  # noqa: B009
        raise ValueError(f"{annotation.__name__}: a group of options is a frozen dataclass with an instance as default")
    options = {}
    for name, option in options_of(annotation).items():
        own = getattr(default, name)
        group = None if option.group is None else _group(option.annotation, own)
        options[name] = dataclasses.replace(option, default=own, group=group)
    return types.MappingProxyType(options)


def _flatten(
    options: Mapping[str, Option], values: Mapping[str, Any], naming: Naming, prefix: str = ""
) -> dict[str, Any]:
    """List values of plain options by dotted name; every name is one of an option."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name, _, rest = str(key).replace("-", "_").partition(".")
        option = options.get(name)
        if option is None or (rest and option.group is None):
            raise ValueError(_unknown(options, f"{prefix}{name}{'.' * bool(rest)}{rest}", prefix, naming))
        if option.group is None:
            flat[prefix + name] = value
        else:
            content = {rest: value} if rest else _mapping(option, value, naming, prefix + name)
            flat |= _flatten(option.group, content, naming, f"{prefix}{name}.")
    return flat


def _mapping(option: Option, value: Any, naming: Naming, dotted: str) -> Mapping[str, Any]:
    if isinstance(value, option.annotation):
        return {name: getattr(value, name) for name in option.group or ()}
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_yaml(value)
        except yaml.YAMLError as error:
            raise ValueError(
                f"{naming.label(dotted)}: cannot read {value!r}: {' '.join(str(error).split())}"
            ) from error
    if not isinstance(value, Mapping):
        hint = f"; it is called {naming.address}.{naming.renamed[dotted]} now" if dotted in naming.renamed else ""
        raise ValueError(f"{naming.label(dotted)}: expected {option.describe()}; got {_shown(value)}{hint}")
    return value


def _build(options: Mapping[str, Option], flat: Mapping[str, Any], naming: Naming, prefix: str = "") -> dict[str, Any]:
    built = {}
    for name, option in options.items():
        dotted = prefix + name
        if option.group is not None:
            inner = _build(option.group, flat, naming, f"{dotted}.")
            built[name] = _construct(option.annotation, inner, naming, dotted)
        elif dotted in flat:
            built[name] = _convert(option, flat[dotted], naming, dotted)
        else:
            built[name] = option.default
    return built


def _convert(option: Option, value: Any, naming: Naming, dotted: str) -> Any:
    try:
        return convert_value(value, option.annotation)
    except ValueError as error:
        renamed = naming.renamed_values.get(f"{naming.address}.{dotted}", {})
        hint = f"; it is called {renamed[value]} now" if isinstance(value, str) and value in renamed else ""
        message = f"expected {option.describe()}; got {_shown(value)}{hint}"
        raise ValueError(f"{naming.label(dotted)}: {message}") from error


def _construct(part: type[Any], options: Mapping[str, Any], naming: Naming, dotted: str) -> Any:
    try:
        return part(**options)
    except ValueError as error:
        label = naming.label(dotted)
        # A class that knows its address, as that of a section may, has named the option itself.
        source = label.removesuffix(f"{naming.address}.{dotted}" if dotted else naming.address)
        message = f"{source}{error}" if str(error).startswith(f"{naming.address}.") else f"{label}: {error}"
        raise ValueError(message) from error


def _unknown(options: Mapping[str, Option], dotted: str, prefix: str, naming: Naming) -> str:
    """Say in one line: the option is unknown, its name today or the nearest one, and what there is."""
    if dotted in naming.renamed:
        return f"{naming.label(dotted)}: it is called {naming.address}.{naming.renamed[dotted]} now"
    choices = [prefix + name for name, _ in leaves(options)]
    last = dotted.rpartition(".")[2]
    # The group is easily forgotten: `head.pre_nms_top_k` for `head.rpn.pre_nms_top_k`.
    near = [name for name in choices if name.rpartition(".")[2] == last] or nearest(dotted, choices)
    did_you_mean = " or ".join(f"'{naming.address}.{name}'" for name in near)
    suggestion = f"; did you mean {did_you_mean}?" if near else ";"
    listed = ", ".join(choices) or "none"
    return f"{naming.label(dotted)}: unknown {naming.owner} option '{dotted}'{suggestion} options: {listed}"


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
