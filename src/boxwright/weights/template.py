"""Templates of the names of tensors: ``head.layers.{n}.norm1.{*}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

_FIELD = re.compile(r"\{(?P<name>\w+|\*\*?)(?P<shift>[+-]\d+)?\}")

_PATTERNS = {"*": r"\w+", "**": r".+"}

Fields = Mapping[str, str]
"""The text, or number, that stands for each field of a template."""


class Template:
    """A pattern of names with fields, which reads the fields of a name and makes a name of fields.

    ``{n}``, or any other word, is a number, and ``{n+2}`` one that is larger by 2. ``{*}`` is the last part of a name,
    without a dot, like ``weight``; ``{**}`` is any part of a name.

    Args:
        text: the pattern.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def match(self, name: str) -> dict[str, str] | None:
        """Read the fields of a name; None where it is no name of this template."""
        matched = self._pattern.fullmatch(name)
        if matched is None:
            return None
        fields: dict[str, str] = {}
        for (field, shift), value in zip(self._fields, matched.groups(), strict=True):
            text = str(int(value) - shift) if field not in _PATTERNS else value
            if fields.setdefault(field, text) != text or text.startswith("-"):
                return None
        return fields

    def fill(self, fields: Fields) -> str:
        """Make the name of fields."""

        def of_field(matched: re.Match[str]) -> str:
            value = fields[matched["name"]]
            return value if matched["name"] in _PATTERNS else str(int(value) + int(matched["shift"] or 0))

        return _FIELD.sub(of_field, self.text)

    @cached_property
    def _fields(self) -> list[tuple[str, int]]:
        return [(matched["name"], int(matched["shift"] or 0)) for matched in _FIELD.finditer(self.text)]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts, end = [], 0
        for matched in _FIELD.finditer(self.text):
            parts.append(re.escape(self.text[end : matched.start()]))
            parts.append(f"({_PATTERNS.get(matched['name'], '[0-9]+')})")
            end = matched.end()
        return re.compile("".join(parts) + re.escape(self.text[end:]))

    def __repr__(self) -> str:
        return f"Template({self.text!r})"
