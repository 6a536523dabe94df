"""Studies as files: a recipe, data, and variations of the recipe, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boxwright.compose.parts import unknown
from boxwright.compose.recipe_text import UniqueKeyLoader, flatten
from boxwright.compose.recipes import resolve
from boxwright.compose.yaml_text import parse_yaml

if TYPE_CHECKING:
    from boxwright.compose.recipe import Recipe

STUDIES = Path(__file__).parents[1] / "studies"

_KEYS = ("base", "data", "overrides", "seeds", "variations", "against", "published")
_LENGTHS = {"train.steps", "train.budget", "train.epochs"}
"""Options that say how long a run is: one takes the place of any other."""

_DRAWN = {"train": 400, "val": 100, "image_size": 128, "seed": 0}
"""Parameters of drawn data, and what they are where a study says nothing."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Numbers that a paper has for variations of a study: of its own data and schedule, and no measure of these runs.

    Args:
        source: paper and table, data and schedule.
        measure: name of the number, as AP.
        values: by variation, those that the paper has.
    """

    source: str
    measure: str
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of variations of a recipe.

    Args:
        name: of the file, without its end.
        source: name or path that it was read by.
        summary: the first line of the file, where that is a comment.
        base: name of the recipe that is varied, or path of a YAML file.
        data: folder of a data set; None for drawn data.
        drawn: parameters of drawn data: train and val images, image_size, seed.
        overrides: of the recipe in all runs, by dotted name.
        seeds: of the runs of each variation.
        variations: overrides of each, by its name.
        against: name of the variation that the others are compared with.
        published: what a paper has for the variations; None where nothing is known.
    """

    name: str
    source: str
    summary: str
    base: str
    data: str | None
    drawn: Mapping[str, int] = field(default_factory=lambda: dict(_DRAWN))
    overrides: Mapping[str, Any]
    seeds: tuple[int, ...]
    variations: Mapping[str, Mapping[str, Any]]
    against: str
    published: Published | None = None

    def resolve(self, name: str, seed: int) -> Recipe:
        """Return the recipe of a run.

        Raises:
            ValueError: an unknown part or option, or a value of the wrong type; names the variation.
        """
        merged = {**self.overrides, **self.variations[name], "train.runtime.seed": seed}
        # The length that a study names takes the place of the recipe's.
        unset = dict.fromkeys(_LENGTHS - {"train.epochs"} - merged.keys()) if _LENGTHS & merged.keys() else {}
        try:
            return resolve(self.base, unset | merged).recipe
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{self.name}: variation {name!r}: {error}") from None

    def check(self) -> None:
        """Resolve every variation; see ``resolve``."""
        for name in self.variations:
            self.resolve(name, self.seeds[0])


def list_studies() -> list[str]:
    """List the names of the studies that come with Boxwright."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def study_summary(name: str) -> str:
    """Read the first comment line of a study that comes with Boxwright."""
    with (STUDIES / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def read_study(
    name_or_path: str | Path,
    *,
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Read a study, and check all of its variations.

    Args:
        name_or_path: name of a study that comes with Boxwright, or path of a YAML file.
        data: folder of a data set in place of the study's.
        seeds: in place of the study's.
        overrides: of the recipe in all runs, over those of the study.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no study, or a variation has a part, option or value that does not exist, in one line.
    """
    path = find_study(name_or_path)
    text = path.read_text(encoding="utf-8")
    try:
        content = parse_yaml(text, UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a study has {', '.join(_KEYS)}; this is not a mapping")
    for key in content:
        if key not in _KEYS:
            raise ValueError(f"{path}: {unknown('key', str(key), _KEYS, 'keys of a study')}")
    first = text.partition("\n")[0]
    study = _parse(path, content, first.removeprefix("#").strip() if first.startswith("#") else "")
    if data is not None:
        study = replace(study, data=str(data))
    if seeds is not None:
        study = replace(study, seeds=_read_seeds(path, list(seeds)))
    typed = {key.replace("-", "_"): value for key, value in (overrides or {}).items()}
    kept = {key: value for key, value in study.overrides.items() if not (key in _LENGTHS and _LENGTHS & typed.keys())}
    study = replace(study, overrides={**kept, **typed})
    study.check()
    return study


def find_study(name_or_path: str | Path) -> Path:
    """Find the file of a study, by the name of one that comes with Boxwright or by its path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no study of this name; in one line.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        name = str(name_or_path).replace("-", "_")
        if name not in list_studies():
            problem = unknown("study", str(name_or_path), list_studies(), "studies")
            raise ValueError(f"{problem}; or give the path of a .yaml file")
        return STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not a study' if path.is_dir() else 'no such file'}")
    return path


def _parse(path: Path, content: Mapping[str, Any], summary: str) -> Study:
    base, variations = content.get("base"), content.get("variations")
    if not isinstance(base, str):
        raise ValueError(f"{path}: base is the name of a recipe or the path of a YAML file, not {base!r}")
    if not isinstance(variations, Mapping) or len(variations) < 2:
        raise ValueError(f"{path}: variations are two or more, each a name with options: {{a: {{}}, b: {{...}}}}")
    names = [str(name) for name in variations]
    if len({_slug(name) for name in names}) < len(names):
        raise ValueError(f"{path}: two variations have names that differ in signs alone: {', '.join(names)}")
    against = str(content.get("against", names[0]))
    if against not in names:
        raise ValueError(f"{path}: against: {unknown('variation', against, names, 'variations')}")
    data, drawn = _read_data(path, content.get("data"))
    return Study(
        name=path.stem,
        source=path.stem if path.parent == STUDIES else str(path),
        summary=summary,
        base=base,
        data=data,
        drawn=drawn,
        overrides=_read_options(path, "overrides", content.get("overrides")),
        seeds=_read_seeds(path, content.get("seeds", [0, 1, 2])),
        variations={str(name): _read_options(path, str(name), own) for name, own in variations.items()},
        against=against,
        published=_read_published(path, content.get("published"), names),
    )


def _read_published(path: Path, value: Any, names: Sequence[str]) -> Published | None:
    if value is None:
        return None
    form = "published has a source and one measure: {source: PAPER, AP: {variation: number}}"
    measures = [str(key) for key in value if key != "source"] if isinstance(value, Mapping) else []
    if len(measures) != 1 or not isinstance(value.get("source"), str) or not isinstance(value[measures[0]], Mapping):
        raise ValueError(f"{path}: {form}, not {value!r}")
    values = {str(name): number for name, number in value[measures[0]].items()}
    for name, number in values.items():
        if name not in names:
            raise ValueError(f"{path}: published: {unknown('variation', name, names, 'variations')}")
        if type(number) not in (int, float):
            raise ValueError(f"{path}: published: {name} is a number, not {number!r}")
    return Published(source=value["source"], measure=measures[0], values=values)


def _read_options(path: Path, where: str, value: Any) -> dict[str, Any]:
    """Return options by dotted name; parts that are swapped stay whole."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: {where} has options of a recipe, as neck.variant: A, not {value!r}")
    options: dict[str, Any] = {}
    for key, own in value.items():
        is_part = str(key) in ("backbone", "neck", "head")
        options |= {str(key): own} if is_part else flatten({str(key): own})
    return options


def _read_seeds(path: Path, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(one) is int and one >= 0 for one in value):
        raise ValueError(f"{path}: seeds is a list of whole numbers from 0, as [0, 1, 2], not {value!r}")
    if len(set(value)) < len(value):
        raise ValueError(f"{path}: seeds has a number twice: {value}")
    return tuple(value)


def _read_data(path: Path, value: Any) -> tuple[str | None, dict[str, int]]:
    if value is None or isinstance(value, str):
        return value, dict(_DRAWN)
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: data is a folder, or parameters of drawn data: {', '.join(_DRAWN)}; not {value!r}")
    for key, own in value.items():
        if key not in _DRAWN:
            raise ValueError(f"{path}: data: {unknown('parameter', str(key), _DRAWN, 'parameters of drawn data')}")
        if type(own) is not int:
            raise ValueError(f"{path}: data: {key} is a whole number, not {own!r}")
    return None, {**_DRAWN, **value}


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).lower()


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of a run of a study."""
    return out / "runs" / _slug(name) / f"seed_{seed}"
