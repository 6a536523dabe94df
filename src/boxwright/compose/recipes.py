"""Recipes by name or path, and their resolution: every part known, every option checked.

Listing and reading files imports neither the parts nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from boxwright.compose.draft import Draft, OptionOwner
from boxwright.compose.parts import unknown
from boxwright.compose.recipe_text import SECTION_NAMES, SLOTS, UniqueKeyLoader
from boxwright.compose.yaml_text import MAX_RECIPE_LETTERS, parse_yaml
from boxwright_runtime.printable_names import one_line_errors

if TYPE_CHECKING:
    from boxwright.compose.recipe import Recipe

_FOLDER = Path(__file__).parents[1] / "recipes"


MODEL_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".onnx", ".xml")
"""Ends of names of files with weights."""


class Resolution(NamedTuple):
    """A resolved recipe, and notes for the user on how it came about, one line each."""

    recipe: Recipe
    notes: tuple[str, ...]


def list_recipes() -> list[str]:
    """List the names of the recipes that come with Boxwright."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def names_model(name_or_path: str | Path) -> bool:
    """Tell whether a text names a model with weights (a file, a folder, ``hf:OWNER/NAME``) and no recipe."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or str(name_or_path).replace("-", "_") in list_recipes():
        return False
    return path.exists() or ":" in str(name_or_path) or path.suffix in MODEL_SUFFIXES or "/" in str(name_or_path)


def recipe_path(name: str) -> Path:
    """Return the file of a recipe that comes with Boxwright."""
    return _FOLDER / f"{name}.yaml"


def recipe_summary(name: str) -> str:
    """Read the first comment line of a recipe that comes with Boxwright."""
    with recipe_path(name).open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
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
        path = recipe_path(name)
    try:
        recipe = parse_yaml(_read_text(path), UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise ValueError(
            f"{path}: a recipe has sections ({', '.join([*SLOTS, *SECTION_NAMES])}); this is not a mapping"
        )
    return recipe


def _read_text(path: Path) -> str:
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path}: not a file; a recipe is a text file")
        raise FileNotFoundError(f"{path}: no such file; give the path of a recipe")
    with path.open("rb") as file:
        return file.read(4 * MAX_RECIPE_LETTERS + 1).decode("utf-8")


@one_line_errors()
def resolve(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None) -> Resolution:
    """Check a recipe and fill in every default.

    Parts outside Boxwright are imported, except those that a file names: their modules have to be imported already.

    Args:
        recipe: a name, a path, or a recipe: as in a file, or resolved already.
        overrides: by dotted key. ``neck`` swaps a part: a name, several (a list, or text with commas), or a
            mapping with ``name`` and options; ``neck.repeats`` sets an option, ``neck.1.repeats`` that of the
            second of a chain; ``train.lr`` likewise. Dashes count as underscores, text is converted.

    Raises:
        ValueError: an unknown part or option, a value of the wrong type, a missing section, in one line.
    """
    if not isinstance(recipe, str | Path | Mapping) and not overrides:
        return Resolution(recipe, ())
    drafted = _draft(recipe, overrides)
    return Resolution(replace(drafted.draft.parse(drafted.trusted), name=drafted.name), tuple(drafted.draft.notes))


@one_line_errors()
def describe_options(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> list[OptionOwner]:
    """List the parts and sections of a recipe with their options and values, without torch where that can be.

    Args:
        recipe: a name or a path.
        overrides: as for ``resolve``.

    Raises:
        ValueError: an unknown part or option, a value of the wrong type, a missing section, in one line.
    """
    drafted = _draft(recipe, overrides)
    return drafted.draft.list_owners(drafted.trusted)


class _Drafted(NamedTuple):
    """A draft, the name of its recipe, and the modules that may be imported for parts that it names; None for all."""

    draft: Draft
    name: str | None
    trusted: tuple[str, ...] | None


def _draft(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None) -> _Drafted:
    source, name, trusted = "recipe", None, None
    if isinstance(recipe, str | Path):
        # What a file names is imported only where the user has trusted the module by importing it.
        source, name, trusted = str(recipe), Path(recipe).stem.replace("-", "_"), ()
        recipe = load_recipe(recipe)
    elif not isinstance(recipe, Mapping):
        name, recipe = recipe.name, recipe.to_dict()
    draft = Draft(recipe, source)
    # Parts first, whatever the order: options belong to the part that is there in the end.
    by_depth = sorted((overrides or {}).items(), key=lambda item: "." in item[0])
    for key, value in by_depth:
        draft.override(key.replace("-", "_"), value)
    return _Drafted(draft, name, trusted)
