"""Record of comparisons: against what each kind of file was compared, in which images, and what differed at most.

``docs/compared.json`` holds a row for each source and variant; ``make tables`` makes a table of it in docs/weights.md.
Tests write rows only when they are asked to, and replace those of the same name alone:

    BOXWRIGHT_RECORD=docs/compared.json python -m pytest -o addopts= tests/weights/sources/test_hf_detr.py
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from boxwright_runtime.input_format import InputFormat
from weights.source_checks import SHAPES, Differences

STORED = Path(__file__).parents[2] / "docs" / "compared.json"

VARIABLE = "BOXWRIGHT_RECORD"
"""Environment variable with the path of the file to write rows into."""

Size = Literal["small", "released"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row.

    Args:
        source: kind of files, a name in ``weights/sources``.
        variant: of the models of that kind.
        size: of the model: a small one, or as those that were released.
        project: what it was compared with, with its version or commit.
        images: (height, width) of each image.
        limited: those of them, by index, whose input would be longer than the maximal size.
        input: how images become inputs; empty where they are inputs as they are.
        differences: the largest of each quantity that was compared: ``scores``, ``boxes`` in pixels, ``levels``,
            ``logits``, ``normalized boxes``, ``probabilities``.
        test: that measures it.
        note: what else is to be said of it.
    """

    source: str
    variant: str
    size: Size
    project: str
    images: Sequence[Sequence[int]]
    differences: Mapping[str, float]
    test: str
    limited: Sequence[int] = ()
    input: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Name of the row: of two with the same, the later one is kept."""
        return self.source, self.size, self.variant


def name_version(package: str) -> str:
    """Name a package with its installed version."""
    return f"{package} {version(package)}"


def read_comparisons(path: Path = STORED) -> list[Comparison]:
    """Read all rows of a file; none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [Comparison(**row) for row in json.loads(text or "[]")]


class Recorder:
    """Recorder of what one test measured."""

    def __init__(self, test: str) -> None:
        self.test = test.partition("[")[0]

    def __call__(
        self,
        source: str,
        variant: str,
        project: str,
        differences: Differences | Mapping[str, float],
        *,
        inputs: InputFormat | None = None,
        images: Sequence[tuple[int, int]] = SHAPES,
        size: Size = "small",
        note: str = "",
    ) -> None:
        """Record a comparison after it was passed; without ``BOXWRIGHT_RECORD``, warn if it is not in the table.

        Args:
            source: as of ``Comparison``, and so are those that are not explained here.
            variant: as of ``Comparison``.
            project: as of ``Comparison``.
            differences: as of ``Comparison``; two digits of each are kept.
            inputs: the format of the model's inputs; None where the images were inputs as they are.
            images: as of ``Comparison``.
            size: as of ``Comparison``.
            note: as of ``Comparison``.
        """
        if isinstance(differences, Differences):
            differences = differences._asdict()
        row = Comparison(
            source=source,
            variant=variant,
            size=size,
            project=project,
            images=[list(shape) for shape in images],
            limited=[i for i, shape in enumerate(images) if inputs is not None and is_limited(inputs, *shape)],
            input="" if inputs is None else describe_inputs(inputs),
            differences={name: float(f"{value:.1e}") for name, value in differences.items()},
            test=self.test,
            note=note,
        )
        if path := os.environ.get(VARIABLE):
            write_comparison(Path(path), row)
        elif row.key not in {other.key for other in read_comparisons()}:
            warnings.warn(
                f"docs/compared.json has no row {' '.join(row.key)}: {VARIABLE}=docs/compared.json python -m pytest "
                f"-o addopts= {self.test}; make tables",
                stacklevel=2,
            )


def is_limited(inputs: InputFormat, height: int, width: int) -> bool:
    """Tell whether the maximal size of inputs binds for an image of this size."""
    if inputs.resize != "shortest_side" or inputs.max_size is None:
        return False
    return max(height, width) * inputs.image_size > inputs.max_size * min(height, width)


def describe_inputs(inputs: InputFormat) -> str:
    """Describe how images become inputs, in a few words."""
    if inputs.resize == "shortest_side":
        return f"{inputs.image_size} to {inputs.max_size}"
    return {"square": "square of {}", "letterbox": "within a square of {}"}[inputs.resize].format(inputs.image_size)


def write_comparison(path: Path, row: Comparison) -> None:
    """Put a row into a file, in place of one of the same name; processes that test side by side wait for each other."""
    with path.open("a+", encoding="utf-8") as file:
        if os.name == "posix":
            fcntl: Any = import_module("fcntl")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        rows = {one.key: one for one in [*(Comparison(**each) for each in json.loads(file.read() or "[]")), row]}
        filled = [{name: value for name, value in asdict(rows[key]).items() if value} for key in sorted(rows)]
        lines = [json.dumps(row, ensure_ascii=False) for row in filled]
        file.seek(0)
        file.truncate()
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
