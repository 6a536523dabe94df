"""Changes of the recipe that weights come with: how they are resolved, and which options the weights need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from boxwright.compose.options import options_of
from boxwright.compose.parts import find_part
from boxwright.compose.recipe import PartOptions, Recipe
from boxwright.compose.recipe_text import ALIASES, SLOTS, flatten, read_mapping
from boxwright.compose.recipes import Resolution, resolve
from boxwright.compose.values import plain
from boxwright.contracts import SizedBackbone
from boxwright.data.format_report import as_typed, note_differences
from boxwright_runtime.input_format import InputFormat


def resolve_model(stated: Recipe, overrides: Mapping[str, Any] | None, assumptions: Iterable[str] = ()) -> Resolution:
    """Resolve changes of the recipe of weights; the notes say in what they are used otherwise than they were made for.

    Args:
        stated: recipe that the weights come with.
        overrides: by dotted key, as for ``boxwright.build``.
        assumptions: what was assumed of the weights, with the options that say otherwise; no note is made of these.

    Raises:
        ValueError: an unknown part or option, or a value that a part refuses, in one line.
    """
    recipe, notes = resolve(stated, scale_longest_side(stated.input, overrides or {}))
    return Resolution(recipe, (*notes, *note_changes(stated, recipe, assumptions)))


def scale_longest_side(stated: InputFormat, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Add to overrides of the image size the longest side in proportion, unless they state it.

    Args:
        stated: format that the weights come with.
        overrides: by dotted key.
    """
    typed = _typed_input(overrides)
    if stated.max_size is None or "image_size" not in typed or {"max_size", "resize"} & typed.keys():
        return dict(overrides)
    try:
        size = int(typed["image_size"])
    except (TypeError, ValueError):  # Resolving says what is wrong with it.
        return dict(overrides)
    return {**overrides, "input.max_size": stated.resize_rule(size).max_size}


def note_changes(stated: Recipe, actual: Recipe, assumptions: Iterable[str] = ()) -> list[str]:
    """Put into a line each what of preprocessing and of parts is not as the weights come with; none where all is.

    What was only assumed may well be otherwise.
    """
    assumed = " ".join(assumptions)
    notes = note_differences(stated.input, actual.input)
    lines = [
        f"{name} {as_typed(there)} became {as_typed(here)}: --{name} {as_typed(there)}"
        for name, there, here in compare_parts(stated, actual)
        if name not in assumed
    ]
    if lines:
        notes.append(f"parts have other options than the weights come with: {'; '.join(lines)}")
    return notes


def note_resized_tables(names: Collection[str], there: PartOptions, here: PartOptions) -> list[str]:
    """Say in a line that tables of positions are interpolated, and how they would stay; no line without such tables.

    Args:
        names: of the tables.
        there: the backbone that they were trained in.
        here: that in use.
    """
    if not names:
        return []
    option = _size_option("backbone", here.name)
    made, used = (None if option is None else part.options.get(option) for part in (there, here))
    if made is None or used is None:
        return [f"{len(names)} tables of positions, made for images of another size, are interpolated"]
    return [
        f"{len(names)} tables of positions, made for inputs of {made} pixels, are interpolated to {used}: "
        f"--backbone.{option} {made} keeps them"
    ]


def compare_parts(one: Recipe, other: Recipe) -> list[tuple[str, Any, Any]]:
    """List the options of parts in which two recipes differ: dotted name, and both values.

    Parts that are others altogether are left out, and tables of positions, which follow the image size.
    """
    there, here = _flat_options(one), _flat_options(other)
    others = {address: part.name for address, part in other.parts().items()}
    same = [address for address, part in one.parts().items() if others.get(address) == part.name]
    return [
        (f"{address}.{name}", there[address].get(name), here[address].get(name))
        for address in same
        for name in {**there[address], **here[address]}
        if there[address].get(name) != here[address].get(name) and name != _size_option(address, others[address])
    ]


def _size_option(address: str, name: str) -> str | None:
    """Find the option of a part that follows the size of the input."""
    part = find_part(SLOTS[address.partition(".")[0]], name)
    return part.size_option if isinstance(part, SizedBackbone) else None


def needed_options(recipe: Recipe, described: Iterable[str] = ()) -> dict[str, Any]:
    """List the options of parts that weights need, by dotted name: all that are not the parts' defaults.

    Args:
        recipe: that the weights are used with.
        described: further ones by dotted name, which the source of the weights has set.
    """
    listed = {_as_addressed(recipe, name) for name in described}
    needed: dict[str, Any] = {}
    for address, options in _flat_options(recipe).items():
        part = recipe.parts()[address]
        owner = find_part(SLOTS[address.partition(".")[0]], part.name)
        defaults = flatten({name: plain(option.default) for name, option in options_of(owner).items()})
        for name, value in options.items():
            dotted = f"{address}.{name}"
            if dotted in listed or name not in defaults or defaults[name] != value:
                needed[dotted] = value
    return needed


def list_part_options(overrides: Mapping[str, Any]) -> list[str]:
    """List the options of parts among overrides, by dotted name."""
    return [name for name in flatten(overrides) if name.partition(".")[0] in SLOTS and "." in name]


def _as_addressed(recipe: Recipe, name: str) -> str:
    """Write the name of an option of the only neck as that of the first of a chain, if that is what the recipe has."""
    if name.startswith("neck.0.") and len(recipe.necks) == 1:
        return name.replace("neck.0.", "neck.", 1)
    return name


def _flat_options(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {address: flatten(plain(part.options)) for address, part in recipe.parts().items()}


def _typed_input(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_input_items(overrides))


def _input_items(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        dotted = key.replace("-", "_")
        section, _, option = ALIASES.get(dotted, dotted).partition(".")
        if section == "input" and option:
            yield option, value
        elif section == "input":
            yield from read_mapping(value, section).items()
