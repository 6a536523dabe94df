"""Recipe files, overrides, and the resolved recipe that needs neither."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from boxwright.compose import legacy
from boxwright.compose.options import Naming, construct, parse_options
from boxwright.compose.parts import Folder, find_part, import_attribute, unknown
from boxwright.compose.values import plain

Recipe = dict[str, Any]
"""As in a file, or resolved: every part with all its options, necks always a list; plain values only."""

SLOTS: dict[str, Folder] = {"backbone": "backbones", "neck": "necks", "head": "heads"}

SECTIONS = {
    "input": "boxwright.data.input_format:InputFormat",
    "augment": "boxwright.data.transforms.augment:Augmentation",
    "train": "boxwright.compose.train_options:TrainOptions",
}
"""What is not a part: the class whose constructor takes the options of each section."""

ALIASES = {"image_size": "input.image_size"}

_FOLDER = Path(__file__).parents[1] / "recipes"


class Resolution(NamedTuple):
    """A resolved recipe, and what the user should know about how it came about, one line each."""

    recipe: Recipe
    notes: tuple[str, ...]


def list_recipes() -> list[str]:
    """Names of the recipes that come with Boxwright."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipe_summary(name: str) -> str:
    """The first comment line of a recipe that comes with Boxwright."""
    with (_FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by its name, or a YAML file by its path.

    Raises:
        ValueError: no recipe of that name, not YAML, the same key twice, an unknown section.
        FileNotFoundError: a path, and nothing is there.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        name = str(name_or_path).replace("-", "_")
        if name not in list_recipes():
            problem = unknown("recipe", str(name_or_path), list_recipes(), "recipes")
            raise ValueError(f"{problem}; or give the path of a .yaml file")
        path = _FOLDER / f"{name}.yaml"
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: a recipe has sections ({', '.join([*SLOTS, *SECTIONS])}); this is not a mapping")
    return recipe


def resolve(recipe: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Resolution:
    """Check a recipe and fill in every default.

    Args:
        recipe: a name, a path or a recipe, which may be resolved already.
        overrides: by dotted key. ``neck`` swaps a part: a name, several (a list, or text with commas), or a
            mapping with ``name`` and options; ``neck.repeats`` sets an option, ``neck.1.repeats`` that of the
            second of a chain; ``train.lr`` likewise. Dashes count as underscores, text is converted.

    Raises:
        ValueError: an unknown part or option, a value of the wrong type, a missing section, in one line.
    """
    source = str(recipe) if isinstance(recipe, str | Path) else "recipe"
    draft = _Draft(recipe if isinstance(recipe, Mapping) else load_recipe(recipe), source)
    # Parts first, whatever the order: options belong to the part that is there in the end.
    by_depth = sorted((overrides or {}).items(), key=lambda item: "." in item[0])
    for key, value in by_depth:
        draft.override(key.replace("-", "_"), value)
    return Resolution(draft.parse(), tuple(draft.notes))


def section_options(recipe: Recipe, section: str) -> Any:
    """The object that a section of a resolved recipe describes, e.g. the ``TrainOptions`` of ``train``."""
    target = import_attribute(SECTIONS[section])
    naming = Naming(owner=f"'{section}'", address=section)
    try:
        return construct(target, naming, parse_options(target, recipe[section], naming))
    except KeyError as error:
        raise ValueError(f"the recipe is not resolved: section '{section}' is missing") from error


class _Entry(NamedTuple):
    """A part or a section: its values in the recipe, with its name, and those that the user typed beside it."""

    values: Recipe
    overrides: Recipe


class _Draft:
    """A recipe on its way to being resolved: the parts with their options, and what the user changed of them."""

    def __init__(self, recipe: Mapping[str, Any], source: str) -> None:
        self.source = source
        self.notes: list[str] = []
        self.swapped: set[str] = set()
        self.slots: dict[str, list[_Entry]] = {}
        self.sections = {section: _Entry({}, {}) for section in SECTIONS}
        for key, value in recipe.items():
            self._check_section(str(key), f"{source}: ")
            if key in SLOTS:
                self.slots[key] = [_Entry(entry, {}) for entry in _entries(key, value, f"{source}: {key}")]
            else:
                self.sections[key] = _Entry(_mapping(value, f"{source}: {key}"), {})
        for slot in SLOTS:
            if slot not in self.slots:
                example = "identity" if slot == "neck" else "NAME"
                raise ValueError(f"{source}: section '{slot}' is missing; write '{slot}: {example}'")

    def override(self, key: str, value: Any) -> None:
        section, _, option = ALIASES.get(key, key).partition(".")
        self._check_section(section, "")
        if not option and section in SLOTS:
            self._swap(section, value)
        elif not option:
            for name, single in _mapping(value, section).items():
                self.override(f"{section}.{name}", single)
        elif section in SECTIONS:
            self.sections[section].overrides[option] = value
        else:
            self._set_option(section, option, value)

    def parse(self) -> Recipe:
        """Which class fills each slot is known now; each checks its options."""
        resolved: Recipe = {}
        for slot, entries in self.slots.items():
            addresses = [slot] if len(entries) == 1 else [f"{slot}.{i}" for i in range(len(entries))]
            parts = [self._parse_part(slot, *pair) for pair in zip(addresses, entries, strict=True)]
            resolved[slot] = parts if slot == "neck" else parts[0]
        for section, entry in self.sections.items():
            target = import_attribute(SECTIONS[section])
            naming = self._naming(f"'{section}'", section, entry, legacy.section_names(section))
            options = parse_options(target, entry.values, naming, overrides=entry.overrides)
            construct(target, naming, options)
            resolved[section] = plain(options)
        return {key: resolved[key] for key in (*SLOTS, *SECTIONS)}

    def _parse_part(self, slot: str, address: str, entry: _Entry) -> Recipe:
        name = entry.values["name"]
        try:
            part = find_part(SLOTS[slot], name)
        except ValueError as error:
            raise ValueError(str(error) if slot in self.swapped else f"{self.source}: {error}") from error
        naming = self._naming(f"{slot} {name}", address, entry, legacy.part_names(slot, name))
        values = {key: value for key, value in entry.values.items() if key != "name"}
        options = parse_options(part, values, naming, overrides=entry.overrides)
        return {"name": name.replace("-", "_") if ":" not in name else name, **plain(options)}

    def _naming(self, owner: str, address: str, entry: _Entry, renamed: Mapping[str, str]) -> Naming:
        typed = frozenset(_dotted(entry.overrides))
        return Naming(
            owner=owner,
            address=address,
            source=self.source,
            overridden=typed,
            renamed=renamed,
            renamed_values=legacy.VALUES,
        )

    def _check_section(self, name: str, prefix: str) -> None:
        known = [*SLOTS, *SECTIONS]
        if name not in known:
            raise ValueError(prefix + unknown("section", name, [*known, *ALIASES] if not prefix else known, "sections"))

    def _swap(self, slot: str, value: Any) -> None:
        self.swapped.add(slot)
        old = {entry.values["name"]: entry for entry in self.slots[slot]}
        new = _entries(slot, value, slot)
        # A part that stays, as in `--neck hybrid_encoder,fpn`, keeps its options.
        self.slots[slot] = [
            old.pop(entry["name"]) if entry.keys() == {"name"} and entry["name"] in old else _Entry(entry, {})
            for entry in new
        ]
        for name, entry in old.items():
            dropped = ", ".join(f"{key}={value}" for key, value in _dotted(entry.values).items() if key != "name")
            if dropped:
                names = ", ".join(entry["name"] for entry in new)
                self.notes.append(f"{slot}: {name} was replaced by {names}; its options are dropped: {dropped}")

    def _set_option(self, slot: str, option: str, value: Any) -> None:
        entries = self.slots[slot]
        index, _, rest = option.partition(".")
        if "name" in (option, rest):
            raise ValueError(f"{slot}.{option}: a part is swapped by {slot} itself, without '.{option}'")
        if index.isdecimal() and rest:
            if int(index) >= len(entries):
                raise ValueError(f"{slot}.{option}: there is no {slot}.{index}, the last is {slot}.{len(entries) - 1}")
            option, position = rest, int(index)
        elif len(entries) > 1:
            raise ValueError(
                f"{slot}.{option}: {len(entries)} {slot}s are chained, say which: {slot}.0.{option} is "
                f"{entries[0].values['name']}'s, {slot}.1.{option} is {entries[1].values['name']}'s"
            )
        else:
            position = 0
        entries[position].overrides[option] = value


def _entries(slot: str, value: Any, where: str) -> list[Recipe]:
    """The parts of a slot, each as a mapping with ``name``."""
    if isinstance(value, str):
        value = _from_text(value, where) if value.lstrip().startswith(("[", "{")) else value.split(",")
    entries = []
    for item in value if isinstance(value, list | tuple) else [value]:
        entry = {"name": item.strip()} if isinstance(item, str) else _mapping(item, where)
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise ValueError(f"{where}: a part is a name or a mapping with 'name', got {item!r}")
        entries.append(entry)
    if not entries or (slot != "neck" and len(entries) > 1):
        raise ValueError(f"{where}: takes {'at least ' if slot == 'neck' else ''}one part, got {len(entries)}")
    return entries


def _mapping(value: Any, where: str) -> Recipe:
    if isinstance(value, str):
        value = _from_text(value, where)
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected options as a mapping, got {value!r}")
    return {str(key).replace("-", "_"): copy.deepcopy(item) for key, item in value.items()}


def _from_text(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: cannot read {text!r}: {' '.join(str(error).split())}") from error


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name, those in mappings too."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            dotted |= _dotted(value, f"{prefix}{name}.")
        else:
            dotted[prefix + name] = value
    return dotted


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the rule that the last of two equal keys wins in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if str(key) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' appears twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep)
