"""Tables of what differs from other projects, from docs/conformance.json and docs/compared.json.

Rows of the first are measured by tests that are marked ``conforms``, those of the second by tests of other projects'
files (``tests/weights``); docs/systems.yaml says which parts a system consists of, and which files hold them. Nobody
types a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DOCS = Path(__file__).parent
KINDS = ("outputs", "assignment", "loss terms", "gradients", "post-processing", "20 training steps")
PEERS = ("authors' code", "transformers", "torchvision", "mmdetection", "effdet")
NOT_MEASURED = "not measured"


class Row(NamedTuple):
    """One quantity that one test measured."""

    part: str
    peer: str
    project: str
    stored: bool
    test: str
    inputs: tuple[str, ...]
    versions: str
    kind: str
    name: str
    precision: str
    unit: str
    value: float


@cache
def read_stored(name: str) -> Any:
    """Read a file of this folder."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)


@cache
def read_rows() -> tuple[Row, ...]:
    """Read all that was measured, tests by their function."""
    return (*_measured_rows(read_stored("conformance.json")), *_compared_rows(read_stored("compared.json")))


def _measured_rows(cases: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for case in cases:
        test = case["test"].partition("[")[0]
        shared = case["part"], case["peer"], case["project"], case["stored"], test, tuple(case["inputs"])
        yield from (Row(*shared, case["versions"], *quantity) for quantity in case["differences"])


def _compared_rows(compared: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Rows of files of other projects, for parts whose files docs/systems.yaml names."""
    files = read_stored("systems.yaml")["files"]
    for row in compared:
        source = f"{row['source']}/{row['variant']}"
        for part in (part for part, patterns in files.items() if any(fnmatch(source, x) for x in patterns)):
            project = re.split(r",| under ", row["project"])[0]
            peer = "authors' code" if "/" in project else project.partition(" ")[0]
            project = f"open-mmlab/{project}" if peer == "mmdetection" else project
            inputs = ", ".join(f"{height} × {width}" for height, width in row["images"])
            shared = part, peer, project, "stored" in row["project"], row["test"], (inputs,), ""
            precision = "float64" if "double" in row.get("note", "") else "float32"
            for name, value in row["differences"].items():
                kind = "post-processing" if name in ("scores", "boxes") else "outputs"
                yield Row(*shared, kind, name, precision, "pixels" if name == "boxes" else "absolute", value)


def format_number(value: float, unit: str) -> str:
    """Write a difference with two digits."""
    if unit == "different":
        return "equal" if value == 0 else f"{value:.1g} of them"
    number = "0" if value == 0 else re.sub(r"\.0(?=e)", "", re.sub("e-0", "e-", f"{value:.1e}"))
    return f"{number} px" if unit == "pixels" else number


def largest(rows: Iterable[Row], *, names: bool = False) -> str:
    """Write the largest difference in each unit, of float64 where there is any; optionally of each name."""
    of: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        unit = {"relative": "absolute"}.get(row.unit, row.unit)
        of.setdefault((row.name if names else "", unit), []).append(row)
    numbers = []
    for (name, unit), same in sorted(of.items()):
        double = [row for row in same if not row.precision.startswith("float32")]
        number = format_number(max(row.value for row in double or same), unit)
        numbers.append(" ".join(filter(None, (name, number, "" if double else "(float32)"))))
    if len(numbers) > 1 and not names:
        numbers = [number for number in numbers if number != "equal"]
    return ", ".join(numbers)


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else "|---" * len(header) + "|" for line in lines)


def kind_cells(rows: Sequence[Row]) -> list[str]:
    """List the largest difference of each kind, also where there is none."""
    return [largest(row for row in rows if row.kind == kind) or NOT_MEASURED for kind in KINDS]


def conformance_of_systems() -> str:
    """A row for each system and kind of project, and one for all projects that it was not measured against."""
    rows, cells = read_rows(), []
    for of_subject in read_stored("systems.yaml")["subjects"].values():
        for system in of_subject:
            name = f"{system['system']}: `{system['recipes'][0]}`"
            of_system = [row for row in rows if row.part in system["proven"]]
            peers = sorted({row.peer for row in of_system}, key=lambda peer: (peer not in PEERS, peer))
            cells += [[name, peer, *kind_cells([row for row in of_system if row.peer == peer])] for peer in peers]
            if others := [peer for peer in PEERS if peer not in peers]:
                cells.append([name, ", ".join(others), *[NOT_MEASURED] * len(KINDS)])
    return make_table(["system", "against", *KINDS], cells)


def conformance_of_parts() -> str:
    """A row for each part and project."""
    rows = read_rows()
    pairs = sorted({(row.part, row.project) for row in rows}, key=lambda pair: (pair[0].lower(), pair[1]))
    return make_table(
        ["part", "against", *KINDS],
        (
            [part, project, *kind_cells([row for row in rows if (row.part, row.project) == (part, project)])]
            for part, project in pairs
        ),
    )


def conformance_of_tests() -> str:
    """A row for each test and project: how it runs, what it measures on which inputs, and the command."""
    rows = read_rows()
    groups = sorted({(r.part, r.project, r.stored, r.test) for r in rows}, key=lambda group: (group[0].lower(), *group))
    cells = []
    for part, project, stored, test in groups:
        of_group = [r for r in rows if (r.part, r.project, r.stored, r.test) == (part, project, stored, test)]
        numbers = [
            f"{kind}: {largest((row for row in of_group if row.kind == kind), names=True)}"
            for kind in KINDS
            if any(row.kind == kind for row in of_group)
        ]
        precisions = sorted({row.precision for row in of_group} - {""})
        inputs = dict.fromkeys(text for row in of_group for text in row.inputs)
        versions = sorted({row.versions for row in of_group} - {""})
        how = ", ".join([project, "stored" if stored else "live", *versions])
        cells.append([part, how, "; ".join(numbers), ", ".join(precisions), "; ".join(inputs), command_of(test)])
    return make_table(["part", "against", "largest differences", "precision", "inputs", "repeat"], cells)


def command_of(test: str) -> str:
    """Write the command that repeats a test, and keeps what it measures."""
    if test.startswith("tests/weights/"):
        return f"`BOXWRIGHT_RECORD=docs/compared.json python -m pytest -o addopts= {test}`"
    return f"`make conformance TEST={test}`"


def proof(part: str) -> str:
    """Write the largest differences of a part from all that it was measured against.

    Raises:
        ValueError: it was never measured.
    """
    rows = [row for row in read_rows() if row.part == part]
    if not rows:
        raise ValueError(f"docs/conformance.json has nothing of '{part}'")
    measured = [f"{kind} {cell}" for kind, cell in zip(KINDS, kind_cells(rows), strict=True) if cell != NOT_MEASURED]
    return f"{part}: {', '.join(measured)} ({', '.join(sorted({row.peer for row in rows}))})"
