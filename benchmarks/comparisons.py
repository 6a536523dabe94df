"""All comparisons with other projects, one after the other: ``python -m benchmarks`` writes docs/speed.md.

    python -m benchmarks                                            every benchmark, both precisions
    python -m benchmarks --only roi_align rtdetr_against_transformers --precision float32
    python -m benchmarks --quick --out /tmp/speed                   tiny sizes, to see that all run
    python -m benchmarks --only rtdetr_against_transformers -- --depth 18 --batch 8

The numbers are stored in docs/speed, in one file for each kind of machine, where rows of comparisons that are not run
stay as they are. docs/speed.md has the tables of all of these files. What follows ``--`` are the arguments of the
benchmark, instead of those that it is run with otherwise. Nobody else should use the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from machine import describe_machine, file_name, list_versions
from side_by_side import PRECISIONS, Row

ROOT = Path(__file__).resolve().parents[1]
SPEED = ROOT / "docs" / "speed"

BENCHMARKS = (
    "rtdetr_against_transformers",
    "dfine_against_transformers",
    "deformable_detr_against_transformers",
    "retinanet_against_torchvision",
    "rcnn_against_torchvision",
    "deformable_sampling",
    "roi_align",
    "bottleneck_attention",
    "export_against_transformers",
    "preprocessing",
    "input_pipeline",
    "training_input",
)
"""Modules of this folder with ``make_parser``, ``measure``, ``CASES`` and ``QUICK``."""

DIGITS = 4
"""Significant digits of stored numbers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks, store their numbers after each, and write the page; return the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    options, case = make_parser().parse_args(given[:end]), given[end + 1 :]
    out = options.out or (None if options.quick else SPEED)
    machine = describe_machine(options.device)
    failed = []
    for name in options.only:
        print(f"{name}:", flush=True)
        try:
            rows, threads = run_benchmark(import_module(name), options, case)
        except Exception as error:  # The other benchmarks go on.
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
            continue
        if rows and out is not None:
            store(out, machine, threads, rows)
    if out is not None and out.resolve() == SPEED:
        page_writer()("speed")
    return int(bool(failed))


def page_writer() -> Callable[[str], object]:
    """Return the function that writes a table of the docs."""
    sys.path.insert(0, str(ROOT / "docs"))
    return cast(Callable[[str], object], runpy.run_path(str(ROOT / "docs" / "tables.py"))["write_table"])


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="of both sides (default: all)")
    parser.add_argument("--rounds", type=int, help="of each comparison; its own number by default")
    parser.add_argument("--threads", type=int, help="as many as cores may be used by default; 1 where one is compared")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two rounds; not stored unless --out is")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the numbers (default: docs/speed)")
    return parser


def run_benchmark(
    benchmark: ModuleType, options: argparse.Namespace, case: Sequence[str]
) -> tuple[list[dict[str, Any]], int]:
    """Run a benchmark with each of its cases, or the given one; return its rows, and the threads that computed."""
    rows: list[Row] = []
    threads = 0
    cases = [shlex.split(one) for one in (benchmark.QUICK if options.quick else benchmark.CASES)]
    for sizes in [list(case)] if case else cases:
        parser: argparse.ArgumentParser = benchmark.make_parser()
        if parser.get_default("device") is None and options.device != "cpu":
            print("  is of the CPU alone")
            break
        arguments: list[str] = []
        for option, value in (
            ("precision", options.precision),
            ("device", options.device),
            ("rounds", 2 if options.quick else options.rounds),
            ("threads", options.threads),
        ):
            if value is not None and parser.get_default(option) is not None:
                arguments += [f"--{option}", str(value)]
        parsed = parser.parse_args([*sizes, *arguments])
        threads = parsed.threads
        for row in benchmark.measure(parsed):
            print(f"  {row}", flush=True)
            rows.append(row)
    return [_rounded(row) for row in rows], threads


def _rounded(row: Row) -> dict[str, Any]:
    values = asdict(row)
    return {key: float(f"{x:.{DIGITS}g}") if isinstance(x, float) else x for key, x in values.items()}


def store(folder: Path, machine: dict[str, Any], threads: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows into the file of the machine; those of the same comparison are replaced, all others stay.

    Rows that were measured with the same threads and versions are in one run.
    """
    path = folder / file_name(machine)
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    new = {_key(row) for row in rows}
    for run in runs:
        run["rows"] = [row for row in run["rows"] if _key(row) not in new]
    about = {"threads": threads, "versions": list_versions()}
    same = next((run for run in runs if {key: run[key] for key in about} == about), None)
    if same is None:
        runs.append(same := {**about, "rows": []})
    same["rows"] += rows
    content = {"machine": machine, "runs": [run for run in runs if run["rows"]]}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["what"], row["peer"], row["precision"]
