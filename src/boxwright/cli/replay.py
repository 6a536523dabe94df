"""``boxwright replay``: repeat a step of training that failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser
from boxwright.cli.terminal import is_piped, write_json
from boxwright.files import check_target

if TYPE_CHECKING:
    from boxwright.workflows.replay import ReplayResult


def run(argv: Sequence[str]) -> int:
    """Repeat the step, print its losses and what is not finite, and write JSON; return the exit status."""
    options = _parse(argv)
    target = Path(options.json) if options.json else None
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.replay import replay

    result = replay(options.file, device=options.device, trusted=options.trust, observer=ConsoleObserver())
    if not is_piped(target):
        print("\n".join(describe_replay(result)))
    write_json(target, result.to_json())
    return 0


def describe_replay(result: ReplayResult) -> list[str]:
    """List lines: the step and its images, a table of losses, and the first values that are not finite."""
    lines = [
        f"step {result.step}, images {', '.join(map(str, result.image_ids))}",
        f"in training: {result.failure}",
        "",
    ]
    names = list(dict.fromkeys(name for one in result.repeats for name in one.losses))
    rows = [("", *(one.precision for one in result.repeats))]
    for name in names:
        rows.append((name, *(f"{one.losses[name]:.6g}" if name in one.losses else "" for one in result.repeats)))
    rows.append(("gradient norm", *(f"{one.gradient_norm:.6g}" for one in result.repeats)))
    width = max(len(row[0]) for row in rows)
    lines += [f"{row[0]:{width}}" + "".join(f"  {cell:>12}" for cell in row[1:]) for row in rows]
    lines.append("")
    for one in result.repeats:
        lines.append(f"{one.precision}: {'all is finite' if one.overflow is None else one.overflow.describe()}")
    return lines


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "replay",
        description="Repeat a step of training whose loss or gradient was not finite, as it was and in float32: its "
        "losses by name, and the first module whose numbers are not finite.",
    )
    parser.add_argument("file", metavar="FILE", help="failed_step.pt from the folder of a run, or that folder")
    parser.add_argument("--json", metavar="FILE", help="also write all of it as JSON")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help="import parts from MODULE")
    options = parser.parse(argv)
    if options.json:
        check_target(Path(options.json))
    return options
