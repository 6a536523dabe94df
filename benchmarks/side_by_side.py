"""Two sides measured in turn: rows of results, the options that all benchmarks have, and objects to train on.

Every benchmark of a comparison has ``make_parser``, ``measure``, which yields a ``Row`` for each comparison and
precision, and the arguments with which ``python -m benchmarks`` runs it: ``CASES``, and ``QUICK`` for a try.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from boxwright.structures import Targets

Action = Callable[[], object]

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Args:
        what: the work, with sizes.
        peer: the other side.
        precision: of both sides.
        ours: median over the rounds, in ``unit``.
        theirs: the same of the peer.
        ratio: median over the rounds of theirs by ours; above 1 ours is faster, or smaller.
        low: a quarter of the rounds has a lower ratio.
        high: a quarter of the rounds has a higher ratio.
        rounds: how many.
        unit: ms, or MiB.
    """

    what: str
    peer: str
    precision: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    rounds: int
    unit: str = "ms"

    def __str__(self) -> str:
        """Write a line for the terminal."""
        return (
            f"{self.what}, {self.precision}: boxwright {self.ours:.4g} {self.unit}, {self.peer} {self.theirs:.4g} "
            f"{self.unit}, ratio {self.ratio:.2f} ({self.low:.2f} to {self.high:.2f} in {self.rounds} rounds)"
        )


def turns(
    *actions: Action, rounds: int, warm_up: int = 2, device: torch.device | str = "cpu"
) -> list[tuple[float, ...]]:
    """Measure the seconds of actions that take turns, of each in every round; the first ``warm_up`` do not count."""
    wait: Action = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    measured = []
    for i in range(rounds + warm_up):
        seconds = []
        for action in actions:
            wait()
            start = time.perf_counter()
            action()
            wait()
            seconds.append(time.perf_counter() - start)
        if i >= warm_up:
            measured.append(tuple(seconds))
    return measured


def in_turn(*actions: Action, rounds: int, warm_up: int = 2) -> list[float]:
    """Measure the median seconds of actions that take turns."""
    return [statistics.median(times) for times in zip(*turns(*actions, rounds=rounds, warm_up=warm_up), strict=True)]


def make_row(what: str, peer: str, measured: Iterable[tuple[float, float]], precision: str, unit: str = "ms") -> Row:
    """Make a row of what both sides took in each round: seconds, or MiB where that is the unit."""
    pairs = list(measured)
    scale = 1e3 if unit == "ms" else 1.0
    ratios = [theirs / ours for ours, theirs in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Row(
        what=what,
        peer=peer,
        precision=precision,
        ours=scale * statistics.median(ours for ours, _ in pairs),
        theirs=scale * statistics.median(theirs for _, theirs in pairs),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(pairs),
        unit=unit,
    )


def compare(
    what: str, peer: str, ours: Action, theirs: Action, options: argparse.Namespace, precision: str = "float32"
) -> Row:
    """Measure two actions in turn."""
    device = getattr(options, "device", "cpu")
    pairs = ((one, other) for one, other in turns(ours, theirs, rounds=options.rounds, device=device))
    return make_row(what, peer, pairs, precision)


def make_common_parser(
    doc: str | None, *, rounds: int = 10, precisions: tuple[str, ...] = PRECISIONS, devices: bool = False
) -> argparse.ArgumentParser:
    """Make a parser with the options that benchmarks have in common.

    Args:
        doc: of the benchmark.
        rounds: default number of rounds.
        precisions: default precisions; none where there is nothing to choose.
        devices: whether it also runs on a GPU.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    if precisions:
        parser.add_argument(
            "--precision",
            type=_read_precisions,
            default=precisions,
            metavar="NAME,...",
            help=f"of both sides, bfloat16 under autocast (default: {','.join(precisions)})",
        )
    if devices:
        parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return parser


def _read_precisions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"one or several of {', '.join(PRECISIONS)}, with commas, not {text!r}")
    return names


def begin(options: argparse.Namespace) -> None:
    """Set threads and seed; of a benchmark and of each of its comparisons, so that they do not depend on each other."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)


def autocast(precision: str, device: torch.device | str = "cpu") -> AbstractContextManager[object]:
    """Return the context in which both sides compute."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def print_rows(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is there."""
    for row in rows:
        print(row, flush=True)


def random_objects(
    count: int, side: int, num_classes: int, generator: torch.Generator, *, masks: bool = False
) -> Targets:
    """Draw objects of a square image, of a twentieth to two fifths of its sides; masks fill their boxes."""
    corner = torch.rand(count, 2, generator=generator) * 0.6 * side
    size = (torch.rand(count, 2, generator=generator) * 0.35 + 0.05) * side
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    boxes = torch.cat((corner, corner + size), 1)
    return Targets(labels, boxes, (side, side), _filled(boxes, side) if masks else None)


def _filled(boxes: Tensor, side: int) -> Tensor:
    y, x = torch.arange(side)[:, None], torch.arange(side)
    x1, y1, x2, y2 = boxes.t()[:, :, None, None]
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
