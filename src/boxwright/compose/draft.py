"""A recipe on its way to being resolved.

Names of parts, typed options of parts, and the options of input and training are checked before anything is imported
that needs torch, so that a slip is answered at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from boxwright import legacy
from boxwright.compose.options import (
    Naming,
    Option,
    check_typed_options,
    construct,
    expand_short_names,
    flat_values,
    options_of,
    parse_options,
)
from boxwright.compose.outlines import Outline, outline_dataclass, outline_part
from boxwright.compose.parts import check_part_name, find_part, unknown
from boxwright.compose.recipe_text import ALIASES, SECTION_NAMES, SLOTS, Entry, flatten, read_entries, read_mapping
from boxwright.compose.train_options import TrainOptions
from boxwright_runtime.input_format import InputFormat

if TYPE_CHECKING:
    from boxwright.compose.recipe import PartOptions, Recipe

_Section = TypeVar("_Section")

_PLAIN = (str, int, float, list, tuple)
"""Types of values as they are typed; others, as groups from Python, are checked with the class itself."""

_SIZES = {"image_size", "max_size", "pad_multiple"}
"""Options of the input that the size of its longer side depends on."""

_LIGHT: Mapping[str, type[Any]] = {"input": InputFormat, "train": TrainOptions}
"""Sections whose classes are imported without torch."""

AUGMENTATION = "boxwright.data.transforms.augment:Augmentation"
"""Class of the section whose import needs torch."""


class _Entry(NamedTuple):
    """A part or a section: its values in the recipe, with its name, and those that the user typed beside it."""

    values: Entry
    overrides: Entry


class OptionOwner(NamedTuple):
    """A part or a section of a recipe, with its options.

    Args:
        address: in the recipe: ``backbone``, ``neck`` or ``neck.0``, ``head``, ``input`` ...
        name: of a part; empty for a section.
        summary: first line of the docstring.
        options: by name.
        values: those of the recipe, of plain options by dotted name.
    """

    address: str
    name: str
    summary: str
    options: Mapping[str, Option]
    values: Mapping[str, Any]


class Draft:
    """A recipe on its way to being resolved: the parts with their options, and what the user changed of them."""

    def __init__(self, recipe: Mapping[str, Any], source: str) -> None:
        self.source = source
        self.notes: list[str] = []
        self.swapped: set[str] = set()
        self.slots: dict[str, list[_Entry]] = {}
        self.sections = {section: _Entry({}, {}) for section in SECTION_NAMES}
        for key, value in recipe.items():
            self._check_section(str(key), f"{source}: ")
            if key in SLOTS:
                self.slots[key] = [_Entry(entry, {}) for entry in read_entries(key, value, f"{source}: {key}")]
            else:
                self.sections[key] = _Entry(read_mapping(value, f"{source}: {key}"), {})
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
            for name, single in read_mapping(value, section).items():
                self.override(f"{section}.{name}", single)
        elif section in SECTION_NAMES:
            self.sections[section].overrides[option] = value
        else:
            self._set_option(section, option, value)

    def parse(self, trusted: Collection[str] | None = None) -> Recipe:
        """Check all options: which class fills each slot is known now.

        Args:
            trusted: modules that may be imported for parts outside Boxwright that the recipe names, None for all; those
                of parts that the user typed always may. See ``find_part``.
        """
        self._check_parts()
        self._scale_longest_side()
        image, train = self._parse_section("input", InputFormat), self._parse_section("train", TrainOptions)
        augment_entry, augment_options = self.sections["augment"], _outline_section("augment").options
        check_typed_options(augment_options, augment_entry.overrides, self._section_naming("augment"))
        # Here, not above: these need torch. And a recipe is made from a draft.
        from boxwright.compose.recipe import Recipe, check_task
        from boxwright.data.transforms.augment import Augmentation

        augment = self._parse_section("augment", Augmentation)
        (backbone,) = self._parse_slot("backbone", trusted, image)
        necks = tuple(self._parse_slot("neck", trusted))
        (head,) = self._parse_slot("head", trusted)
        recipe = Recipe(backbone=backbone, necks=necks, head=head, input=image, augment=augment, train=train)
        check_task(recipe)
        return recipe

    def list_owners(self, trusted: Collection[str] | None = None) -> list[OptionOwner]:
        """List everything that has options, with their values in the recipe.

        Nothing is imported that needs torch, but for parts outside Boxwright and those whose source does not tell all.
        Values are checked by their types alone.

        Args:
            trusted: as for ``parse``.
        """
        self._check_parts()
        self._scale_longest_side()
        image = self._parse_section("input", InputFormat)
        self._parse_section("train", TrainOptions)
        owners = []
        for slot in SLOTS:
            for i, entry in enumerate(self.slots[slot]):
                name = entry.values["name"]
                outline = self._outline(slot, name, trusted)
                values = {key: value for key, value in entry.values.items() if key != "name"}
                if outline.size_option is not None:
                    values |= self._follow_size(outline.size_option, image)
                naming = self._expand_names(entry, outline.options, self._part_naming(slot, i, name))
                parsed = flat_values(outline.options, values, naming, entry.overrides)
                owners.append(OptionOwner(naming.address, name, outline.summary, outline.options, parsed))
        for section, entry in self.sections.items():
            outline = _outline_section(section)
            naming = self._expand_names(entry, outline.options, self._section_naming(section))
            parsed = flat_values(outline.options, entry.values, naming, entry.overrides)
            owners.append(OptionOwner(section, "", outline.summary, outline.options, parsed))
        return owners

    def _outline(self, slot: str, name: str, trusted: Collection[str] | None) -> Outline:
        folder = SLOTS[slot]
        if ":" not in name and (outline := outline_part(folder, name)).is_complete:
            return outline
        from boxwright.contracts import SizedBackbone

        with self._naming_source(slot):
            part = find_part(folder, name, trusted=None if slot in self.swapped else trusted)
        return _outline_class(part, part.size_option if isinstance(part, SizedBackbone) else None)

    def _scale_longest_side(self) -> None:
        """Let the longest side follow an image size that the user typed, unless the longest side is typed too.

        With the recipe's own, 512 pixels beside ``--image-size 256``, a wide image would still be 512 pixels wide.
        """
        values, typed = self.sections["input"]
        keeps_shape = typed.get("resize", values.get("resize")) == "shortest_side"
        if "image_size" not in typed or "max_size" in typed or values.get("max_size") is None or not keeps_shape:
            return
        try:
            longest, size = int(values["max_size"]), int(values.get("image_size", InputFormat.image_size))
            stated = InputFormat(image_size=size, max_size=longest, resize="shortest_side")
            scaled = stated.at_size(int(typed["image_size"])).max_size
        except (TypeError, ValueError):  # Parsing the section says what is wrong.
            return
        typed["max_size"] = scaled
        if scaled != longest:
            self.notes.append(
                f"the longest side of images follows the image size: {scaled} pixels instead of {longest}; "
                "--input.max_size sets another"
            )

    def _check_parts(self) -> None:
        """Check names of parts, and what the user typed for their options, as far as their source tells."""
        for slot, entries in self.slots.items():
            for i, entry in enumerate(entries):
                with self._naming_source(slot):
                    name = check_part_name(SLOTS[slot], entry.values["name"])
                if entry.overrides and ":" not in name:
                    options = outline_part(SLOTS[slot], name).options
                    naming = self._expand_names(entry, options, self._part_naming(slot, i, name))
                    typed = {key: value for key, value in entry.overrides.items() if isinstance(value, _PLAIN)}
                    check_typed_options(options, typed, naming)

    def _part_naming(self, slot: str, index: int, name: str) -> Naming:
        entries = self.slots[slot]
        address = slot if len(entries) == 1 else f"{slot}.{index}"
        return self._naming(f"{slot} {name}", address, entries[index], legacy.part_names(slot, name.replace("-", "_")))

    @staticmethod
    def _expand_names(entry: _Entry, options: Mapping[str, Option], naming: Naming) -> Naming:
        """Complete the names of typed options, in place; return the naming with them."""
        expanded = expand_short_names(options, entry.overrides, naming.renamed, naming.address)
        entry.overrides.clear()
        entry.overrides.update(expanded)
        return replace(naming, overridden=frozenset(flatten(expanded)))

    def _section_naming(self, section: str) -> Naming:
        return self._naming(f"'{section}'", section, self.sections[section], legacy.section_names(section))

    def _parse_section(self, section: str, owner: type[_Section]) -> _Section:
        entry = self.sections[section]
        naming = self._expand_names(entry, options_of(owner), self._section_naming(section))
        options = parse_options(owner, entry.values, naming, overrides=entry.overrides)
        return cast(_Section, construct(owner, naming, options))

    def _parse_slot(
        self, slot: str, trusted: Collection[str] | None, image: InputFormat | None = None
    ) -> Iterator[PartOptions]:
        from boxwright.compose.recipe import PartOptions
        from boxwright.contracts import SizedBackbone

        entries = self.slots[slot]
        for i, entry in enumerate(entries):
            name = entry.values["name"]
            with self._naming_source(slot):
                part = find_part(SLOTS[slot], name, trusted=None if slot in self.swapped else trusted)
            naming = self._expand_names(entry, options_of(part), self._part_naming(slot, i, name))
            values = {key: value for key, value in entry.values.items() if key != "name"}
            if image is not None and isinstance(part, SizedBackbone):
                values |= self._follow_size(part.size_option, image)
            options = parse_options(part, values, naming, overrides=entry.overrides)
            yield PartOptions(name.replace("-", "_") if ":" not in name else name, options)

    @contextmanager
    def _naming_source(self, slot: str) -> Iterator[None]:
        """Name the recipe in errors about a part, unless the user typed the part."""
        try:
            yield
        except ValueError as error:
            raise ValueError(str(error) if slot in self.swapped else f"{self.source}: {error}") from error

    def _follow_size(self, option: str, image: InputFormat) -> dict[str, int]:
        """Give the size of the input to the option of a backbone that is made for it, unless it is stated.

        What the user typed for the input counts more than what the recipe states for the backbone.
        """
        (backbone,), typed = self.slots["backbone"], self.sections["input"].overrides
        if option in backbone.overrides or (option in backbone.values and not typed.keys() & _SIZES):
            return {}
        longest = image.max_size or image.image_size
        return {option: max(image.padded_size(longest, longest))}

    def _naming(self, owner: str, address: str, entry: _Entry, renamed: Mapping[str, str]) -> Naming:
        typed = frozenset(flatten(entry.overrides))
        return Naming(
            owner=owner,
            address=address,
            source=self.source,
            overridden=typed,
            renamed=renamed,
            renamed_values=legacy.VALUES,
        )

    def _check_section(self, name: str, prefix: str) -> None:
        known = [*SLOTS, *SECTION_NAMES]
        if name not in known:
            raise ValueError(prefix + unknown("section", name, [*known, *ALIASES] if not prefix else known, "sections"))

    def _swap(self, slot: str, value: Any) -> None:
        self.swapped.add(slot)
        old = {entry.values["name"]: entry for entry in self.slots[slot]}
        new = [(entry.pop("name"), entry) for entry in read_entries(slot, value, slot)]
        # A part that stays, as in `--neck hybrid_encoder,fpn`, keeps its options.
        self.slots[slot] = [
            old.pop(name) if not options and name in old else _Entry({"name": name}, options) for name, options in new
        ]
        for name, entry in old.items():
            dropped = ", ".join(f"{key}={value}" for key, value in flatten(entry.values).items() if key != "name")
            if dropped:
                names = ", ".join(new_name for new_name, _ in new)
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


def _outline_section(section: str) -> Outline:
    if section not in _LIGHT:
        return outline_dataclass(*AUGMENTATION.split(":"))
    return _outline_class(_LIGHT[section])


def _outline_class(owner: type[Any], size_option: str | None = None) -> Outline:
    return Outline((inspect.getdoc(owner) or "").partition("\n")[0], options_of(owner), size_option)
