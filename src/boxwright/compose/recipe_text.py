"""The text of recipes: sections, entries of parts, YAML without duplicate keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from boxwright.compose.parts import Folder
from boxwright.compose.yaml_text import parse_yaml

SLOTS: Mapping[str, Folder] = {"backbone": "backbones", "neck": "necks", "head": "heads"}

SECTION_NAMES = ("input", "augment", "train")
"""The sections of a recipe that are not parts."""

ALIASES = {"image_size": "input.image_size"}

Entry = dict[str, Any]
"""A part or a section as it is written."""


def read_entries(slot: str, value: Any, where: str) -> list[Entry]:
    """Read the parts of a slot, each as a mapping with ``name``."""
    if isinstance(value, str):
        value = _from_text(value, where) if value.lstrip().startswith(("[", "{")) else value.split(",")
    entries = []
    for item in value if isinstance(value, list | tuple) else [value]:
        entry = {"name": item.strip()} if isinstance(item, str) else read_mapping(item, where)
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise ValueError(f"{where}: a part is a name or a mapping with 'name', got {item!r}")
        entries.append(entry)
    if not entries or (slot != "neck" and len(entries) > 1):
        raise ValueError(f"{where}: takes {'at least ' if slot == 'neck' else ''}one part, got {len(entries)}")
    return entries


def read_mapping(value: Any, where: str) -> Entry:
    """Read a mapping of options, whose keys have underscores."""
    if isinstance(value, str):
        value = _from_text(value, where)
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected options as a mapping, got {value!r}")
    return {str(key).replace("-", "_"): copy.deepcopy(item) for key, item in value.items()}


def _from_text(text: str, where: str) -> Any:
    try:
        return parse_yaml(text, UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: cannot read {text!r}: {' '.join(str(error).split())}") from error


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """List values by dotted name, those in mappings too."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            dotted |= flatten(value, f"{prefix}{name}.")
        else:
            dotted[prefix + name] = value
    return dotted


def typed_options(overrides: Mapping[str, Any], section: str) -> set[str]:
    """List the options of a section among overrides, whether by dotted key or in a mapping."""
    names = {key.partition(".")[2].replace("-", "_") for key in overrides if key.startswith(f"{section}.")}
    whole = overrides.get(section)
    return names | (set(whole) if isinstance(whole, Mapping) else set())


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the rule that the last of two equal keys wins in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if str(key) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' appears twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep)
