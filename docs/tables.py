"""Write the tables that pages take from the code: ``make tables``, or ``python docs/tables.py``.

A table stands between two comments, ``<!-- NAME: ... -->`` and ``<!-- end of NAME -->``, and is replaced whole. Its
rows come from the folders ``backbones``, ``necks`` and ``heads``: the name of a file, the first line of its docstring,
and the paper that the ``Source`` of its class begins with. No page has to be changed for a new part; the next
``make tables`` adds its row, and those of kinds of files in ``weights/sources``. The renamed options in CHANGELOG.md
come from ``legacy.py``, the kinds of findings in docs/check.md from ``boxwright/data`` and ``boxwright/workflows``,
comparisons with other projects from docs/compared.json, into which tests write what they measured, and tables of
studies from docs/studies, which has the ``study.json`` that each wrote. The list of studies comes from their files.
Those of docs/speed.md come from docs/speed, which has the numbers of each machine that ``python -m benchmarks`` ran on,
the table of systems from docs/systems.yaml, and what differs from other projects from docs/conformance.json, into which
``make conformance`` writes what parity tests measured. ``python docs/tables.py NAME`` writes the tables named alone.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import yaml

import boxwright.data
import boxwright.workflows
from boxwright import legacy
from boxwright.cli.list import combination_table
from boxwright.compose.parts import FOLDERS, Folder, list_parts, part_summary
from boxwright.data.findings import FindingKind
from boxwright.weights.recognize import find_kind, list_kinds
from boxwright.weights.source import WritableSource
from boxwright.workflows.study_file import list_studies, study_summary
from boxwright.workflows.study_results import Difference, format_difference, format_spread
from conformance_tables import conformance_of_parts, conformance_of_systems, conformance_of_tests, proof

ROOT = Path(__file__).parents[1]
COMMAND = "make tables"


def parts_table() -> str:
    """A row for each part: name, kind, first line of its module, the paper it is from."""
    rows = [part_row(folder, name) for folder in FOLDERS for name in list_parts(folder)]
    return "\n".join(["| part | kind | what it is | from |", "|---|---|---|---|", *rows])


def part_row(folder: Folder, name: str) -> str:
    """The row of one part."""
    cells = (f"`{name}`", folder[:-1], part_summary(folder, name).rstrip("."), paper_of(folder, name))
    return f"| {' | '.join(cells)} |"


def paper_of(folder: Folder, name: str) -> str:
    """Authors, title, place and year that the ``Source`` of a part's class begins with; empty where it has none."""
    path = ROOT / "src" / "boxwright" / folder / f"{name}.py"
    module = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    texts = [ast.get_docstring(node) or "" for node in classes if node.name.lower() == name.replace("_", "")]
    source = re.search(r"^Source: (.+?)(?:\n\n|\Z)", "".join(texts), re.DOTALL | re.MULTILINE)
    if source is None:
        return ""
    text = " ".join(source[1].split())
    paper = re.match(r".+?, [A-Z]\w+ (?:19|20)\d\d", text)
    return paper[0] if paper else re.split(r"[;:.] |, wh", text)[0]


def combinations() -> str:
    """The table that ``boxwright list --combinations`` prints, as a block of text."""
    return "\n".join(["```text", *combination_table(), "```"])


def renames() -> str:
    """A row for each option that had another name in an earlier version, with the parts that have it."""
    parts: dict[tuple[str, str], list[str]] = {}
    for slot, names_of_parts in legacy.PARTS.items():
        for part, names in names_of_parts.items():
            for old, new in names.items():
                parts.setdefault((f"{slot}.{old}", f"{slot}.{new}"), []).append(f"`{part}`")
    for section, names in legacy.OPTIONS_OF_SECTIONS.items():
        parts |= {(f"{section}.{old}", f"{section}.{new}"): [] for old, new in names.items()}
    rows = [f"| `{old}` | `{new}` | {', '.join(sorted(owners))} |" for (old, new), owners in sorted(parts.items())]
    return "\n".join(["| before | now | of |", "|---|---|---|", *rows])


def sources() -> str:
    """A row for each kind of files of other projects: name, what it is, an example, whether ours is written in it."""
    rows = []
    for name in list_kinds():
        source = find_kind(name)
        of = "detectors" if hasattr(source, "describe") else "backbones"
        written = f"`--to {name}`" if isinstance(source, WritableSource) else ""
        rows.append(f"| `{name}` | {source.title} | {of} | `{source.example}` | {written} |")
    return "\n".join(["| kind | files | of | example | written by `convert` |", "|---|---|---|---|---|", *rows])


def comparisons() -> str:
    """A row for each source and variant that was compared with another project, from docs/compared.json."""
    header = ["kind", "variant", "compared with", "images", "input", "largest differences", "test"]
    stored = json.loads((ROOT / "docs" / "compared.json").read_text(encoding="utf-8"))
    rows = [f"| {' | '.join(comparison_cells(row))} |" for row in stored]
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows])


def comparison_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """List the cells of a comparison; images at which the maximal size binds are bold."""
    images = [f"{height} × {width}" for height, width in row["images"]]
    for index in row.get("limited", []):
        images[index] = f"**{images[index]}**"
    return (
        f"`{row['source']}`",
        row["variant"] + (" (released size)" if row["size"] == "released" else ""),
        "; ".join([row["project"], *([row["note"]] if "note" in row else [])]),
        ", ".join(images),
        row.get("input", ""),
        ", ".join(difference_of(name, value) for name, value in row["differences"].items()),
        f"`{row['test'].removeprefix('tests/weights/')}`",
    )


def difference_of(name: str, value: float) -> str:
    """Write the largest difference of one quantity with two digits."""
    if value == 0:
        return f"{name} equal"
    unit = {"boxes": " px", "levels": " of a standard deviation", "normalized boxes": " of a side"}.get(name, "")
    return f"{name} {re.sub('e-0', 'e-', f'{value:.1e}')}{unit}"


STUDY_COLUMNS = ("AP", "AP50")
"""Numbers of studies that pages show."""


def study_table(name: str) -> str:
    """A row for each variation of a study, from the ``study.json`` that it wrote, kept as docs/studies/NAME.json."""
    study = json.loads((ROOT / "docs" / "studies" / f"{name}.json").read_text(encoding="utf-8"))
    first, *others = STUDY_COLUMNS
    header = ["variation", first, f"{first} - {study['against']}", *others, "runs", "parameters", "GMAC"]
    rows = []
    for row in study["variations"]:
        spreads = [format_spread(**row["numbers"][number]) for number in STUDY_COLUMNS]
        difference = format_difference(None if row["difference"] is None else Difference(**row["difference"]))
        size = [str(len(row["runs"])), f"{row['params']:,}", f"{row['gmac']:.2f}"]
        rows.append(f"| {' | '.join([row['name'], spreads[0], difference, *spreads[1:], *size])} |")
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows])


def studies() -> str:
    """A row for each study: the question and the paper's table that the first line of its file says."""
    rows = []
    for name in list_studies():
        paper, _, question = study_summary(name).partition(": ")
        rows.append(f"| `{name}` | {question.rstrip('.')} | {paper} |")
    return "\n".join(["| study | what it compares | paper |", "|---|---|---|", *rows])


def speed() -> str:
    """Machines and their versions, and a row for each comparison with a column for each machine.

    From docs/speed, whose files ``python -m benchmarks`` writes on each machine.
    """
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "docs" / "speed").glob("*.json"))]
    header = ["machine", "threads", "versions"]
    machines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for file in files:
        name, runs = file["machine"]["name"], file["runs"]
        threads = sorted({run["threads"] for run in runs})
        versions = sorted({f"{package} {number}" for run in runs for package, number in run["versions"].items()})
        machines.append(f"| {name} | {', '.join(map(str, threads))} | {', '.join(versions)} |")
        for row in [row for run in runs for row in run["rows"]]:
            rows.setdefault((row["what"], row["peer"], row["precision"]), {})[name] = speed_cell(row)
    names = [file["machine"]["name"] for file in files]
    header = ["work", "against", "precision", *names]
    table = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    table += [f"| {' | '.join([*key, *(cells.get(name, '') for name in names)])} |" for key, cells in rows.items()]
    return "\n".join([*machines, "", *table])


def speed_cell(row: dict[str, Any]) -> str:
    """Write our time, the ratio of the peer's to it, and the spread of that."""
    ours = f"{row['ours']:.0f}" if row["ours"] >= 10 else f"{row['ours']:.2g}"
    return f"**{row['ratio']:.2f} ×** ({row['low']:.2f} to {row['high']:.2f}), {ours} {row['unit']}"


def systems() -> str:
    """A row for each system of docs/systems.yaml: recipes, differences measured, the tests that train and export it."""
    stored = yaml.safe_load((ROOT / "docs" / "systems.yaml").read_text(encoding="utf-8"))
    rows = [
        f"| {' | '.join([subject, *system_cells(row, stored['tests'])])} |"
        for subject, of_subject in stored["subjects"].items()
        for row in of_subject
    ]
    header = ["subject", "system", "built: recipes", "proven: largest difference", "trains", "exports"]
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows])


def system_cells(row: dict[str, Any], tests: dict[str, str]) -> tuple[str, ...]:
    """List the cells of a system; tests are links to their files."""
    links = {name: f"[{name}]({test.partition('::')[0]})" for name, test in tests.items()}
    return (
        row["system"],
        ", ".join(f"`{name}`" for name in row["recipes"]),
        "; ".join(proof(part) for part in row["proven"]),
        "; ".join(links[name] for name in row["trains"]),
        "; ".join(links[name] for name in row["exports"]),
    )


def finding_kinds() -> str:
    """A row for each kind of finding about a data set, errors first: name, severity, text and advice."""
    kinds = sorted(
        list_kinds_of_findings(), key=lambda kind: (("error", "warning", "note").index(kind.severity), kind.name)
    )
    rows = [f"| `{kind.name}` | {kind.severity} | {kind.text} | {kind.advice} |" for kind in kinds]
    return "\n".join(["| kind | severity | (number of) | what to do |", "|---|---|---|---|", *rows])


def list_kinds_of_findings() -> list[FindingKind]:
    """All kinds that modules of ``boxwright.data`` and ``boxwright.workflows`` define, once each."""
    kinds = {}
    for package in (boxwright.data, boxwright.workflows):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            values = vars(import_module(module.name)).values()
            kinds |= {value.name: value for value in values if isinstance(value, FindingKind)}
    return list(kinds.values())


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "parts": ("README.md", parts_table),
    "combinations": ("docs/combinations.md", combinations),
    "sources": ("docs/weights.md", sources),
    "comparisons": ("docs/weights.md", comparisons),
    "renames": ("CHANGELOG.md", renames),
    "findings": ("docs/check.md", finding_kinds),
    "encoders": ("docs/studies.md", partial(study_table, "encoders")),
    "necks": ("docs/pyramids.md", partial(study_table, "necks")),
    "heads": ("docs/heads.md", partial(study_table, "heads")),
    "studies": ("docs/studies.md", studies),
    "speed": ("docs/speed.md", speed),
    "systems": ("README.md", systems),
    "conformance": ("docs/conformance.md", conformance_of_systems),
    "measurements": ("docs/conformance.md", conformance_of_tests),
    "parity": ("docs/proven.md", conformance_of_parts),
}
"""Name of each table, the page that has it, and the function that makes it."""


def between(name: str) -> re.Pattern[str]:
    """Pattern of a table with the comments around it, in three groups."""
    return re.compile(rf"(<!-- {name}:[^>]*-->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)


def read_table(name: str) -> str:
    """The table as its page has it now.

    Raises:
        ValueError: the page has no comments that say where the table is.
    """
    page = TABLES[name][0]
    match = between(name).search((ROOT / page).read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{page} has no comments '<!-- {name}: ... -->' and '<!-- end of {name} -->' around a table")
    return match[2].strip()


def write_table(name: str) -> bool:
    """Write the table into its page, and tell whether that changed the page."""
    page, make = TABLES[name]
    path = ROOT / page
    before = path.read_text(encoding="utf-8")
    read_table(name)
    table = make()
    after = between(name).sub(lambda match: f"{match[1]}{table}\n{match[3]}", before)
    path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    for table_name, (page_name, _) in TABLES.items():
        if sys.argv[1:] and table_name not in sys.argv[1:]:
            continue
        print(f"{page_name}: {table_name} {'written' if write_table(table_name) else 'as before'}")
