"""YAML of bounded size: no nesting, alias or number in it can make reading it long."""

from __future__ import annotations

from typing import Any

import yaml

MAX_RECIPE_LETTERS = 200_000
"""Of a document; recipes have 1,000."""

_MAX_DEPTH = 20

_MAX_VALUES = 20_000
"""Values of a document, those that aliases repeat counted as often as they are repeated."""


def parse_yaml(text: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """Read a document.

    Raises:
        YAMLError: it is none, it is too large or nested too deeply, or a value in it cannot be read.
    """
    if len(text) > MAX_RECIPE_LETTERS:
        raise yaml.YAMLError(f"{len(text):,} letters, and at most {MAX_RECIPE_LETTERS:,} are read")
    _check_structure(text, loader)
    try:
        return yaml.load(text, loader)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # Of dates that there are not, of numbers of thousands of digits, of keys that are lists.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def _check_structure(text: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> None:
    """Raise YAMLError for nesting that is too deep, an alias within what it repeats, or too many values."""
    repeated: dict[str | None, int] = {}
    open_at: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in repeated:
                raise yaml.YAMLError(f"alias *{event.anchor} repeats nothing that stands whole before it")
            count += repeated[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_at.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_at.pop()
            repeated[anchor] = count - start
        elif isinstance(event, yaml.ScalarEvent):
            repeated[event.anchor] = 1
            count += 1
        if len(open_at) > _MAX_DEPTH or count > _MAX_VALUES:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep, or more than {_MAX_VALUES:,} values")
