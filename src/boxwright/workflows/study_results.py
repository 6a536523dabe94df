"""Results of a study: the numbers of its runs, their spread, and differences with intervals."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from boxwright.files import write_text
from boxwright.training.log import read_log
from boxwright.workflows.study_file import Published, Study, run_folder

SHOWN_NUMBERS = ("AP", "mask AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "top1", "top5")
"""Numbers of evaluations that are shown, where a study has them; the first one is compared."""


class Difference(NamedTuple):
    """Mean of paired differences over seeds, and the ends of its interval of 95 %; None with fewer than two pairs."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class VariationResult:
    """Runs of one variation.

    Args:
        name: of the variation.
        numbers: of the last evaluation of each finished run, by seed and name.
        curves: of each run, by seed: steps and the compared number at each evaluation.
        seconds: time of training of each run, by seed.
        difference: from the variation that all are compared with, over the seeds that both have finished; None for
            that variation itself, and where there is none.
        params: number of parameters.
        gmac: multiply-adds of prediction for one image, in billions.
        latency_ms: median time of prediction of one image; None where it was not measured.
    """

    name: str
    numbers: Mapping[int, Mapping[str, float]]
    curves: Mapping[int, tuple[list[float], list[float]]]
    seconds: Mapping[int, float]
    difference: Difference | None
    params: int
    gmac: float
    latency_ms: float | None = None

    def mean(self, name: str) -> float | None:
        """Return the mean of a number over the finished runs."""
        values = self._values(name)
        return statistics.mean(values) if values else None

    def std(self, name: str) -> float | None:
        """Return the standard deviation of a number over the finished runs; None with fewer than two."""
        values = self._values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [own[name] for own in self.numbers.values() if name in own]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Results of a study, as far as it has come.

    Args:
        study: what was varied.
        folder: with the runs, and ``study.html``, ``study.md`` and ``study.json``.
        variations: in the order of the study.
        measure: name of the number that is compared.
    """

    study: Study
    folder: Path
    variations: tuple[VariationResult, ...]
    measure: str

    @property
    def num_finished(self) -> int:
        """Number of runs that have come to their end."""
        return sum(len(one.numbers) for one in self.variations)

    @property
    def num_runs(self) -> int:
        """Number of all runs."""
        return len(self.study.variations) * len(self.study.seeds)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the numbers that there are."""
        names = {name for one in self.variations for own in one.numbers.values() for name in own}
        return tuple(name for name in SHOWN_NUMBERS if name in names)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``."""
        return {
            "study": self.study.name,
            "base": self.study.base,
            "against": self.study.against,
            "measure": self.measure,
            "published": None if self.study.published is None else asdict(self.study.published),
            "seeds": list(self.study.seeds),
            "finished": self.num_finished,
            "runs": self.num_runs,
            "variations": [self._row(one) for one in self.variations],
        }

    def _row(self, one: VariationResult) -> dict[str, Any]:
        numbers = {name: {"mean": one.mean(name), "std": one.std(name)} for name in self.shown}
        difference = None if one.difference is None else one.difference._asdict()
        return {
            "name": one.name,
            "options": dict(self.study.variations[one.name]),
            "numbers": numbers,
            "runs": {str(seed): dict(own) for seed, own in one.numbers.items()},
            "seconds": {str(seed): own for seed, own in one.seconds.items()},
            "difference": difference,
            "params": one.params,
            "gmac": one.gmac,
            "latency_ms": one.latency_ms,
        }

    def to_markdown(self) -> str:
        """Return a table, a row for each variation; what was published has its own column, and its source below."""
        names = self.shown
        difference = f"{self.measure} - {self.study.against}"
        published = self.study.published
        head = ["variation", *names[:1], difference, *names[1:], "runs", "parameters", "GMAC", "latency"]
        if published is not None:
            head.append(f"{published.measure}, published")
        lines = [head, ["---"] * len(head)]
        for one in self.variations:
            values = [format_spread(one.mean(name), one.std(name)) for name in names]
            latency = "" if one.latency_ms is None else f"{one.latency_ms:.1f} ms"
            size = [f"{one.params:,}", f"{one.gmac:.2f}", latency]
            cells = [*values[:1], format_difference(one.difference), *values[1:], str(len(one.numbers)), *size]
            if published is not None:
                cells.append(format_published(published, one.name))
            lines.append([one.name, *cells])
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return table if published is None else f"{table}\nPublished: {published.source}.\n"


def format_published(published: Published, name: str) -> str:
    """Format the number that a paper has for a variation; nothing where it has none."""
    value = published.values.get(name)
    return "" if value is None else f"{value:g}"


def format_spread(mean: float | None, std: float | None) -> str:
    """Format a mean with its standard deviation; a dash where there is none."""
    if mean is None:
        return "–"
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def format_difference(difference: Difference | None) -> str:
    """Format a difference with its interval; nothing where there is none."""
    if difference is None:
        return ""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def paired_difference(own: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Compare two variations by the seeds that both have.

    Args:
        own: a number by seed.
        base: of the variation that it is compared with.

    Returns:
        The interval is that of Student's t for the mean of the differences; None without a common seed.
    """
    differences = [own[seed] - base[seed] for seed in own if seed in base]
    if not differences:
        return None
    mean, count = statistics.mean(differences), len(differences)
    if count < 2:
        return Difference(mean, None, None)
    half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half)


class RunNumbers(NamedTuple):
    """Numbers of a finished run.

    Args:
        recipe: that it was trained with, as plain values.
        numbers: of the last evaluation.
        curve: steps, and the compared number at each evaluation.
        seconds: time of training.
    """

    recipe: dict[str, Any]
    numbers: dict[str, float]
    curve: tuple[list[float], list[float]]
    seconds: float


RECORD = "study_run.json"
"""Name of the file in the folder of a run that says that it has ended, and how."""


def record_run(folder: Path, recipe: Mapping[str, Any], measure: str, seconds: float) -> None:
    """Keep the numbers of a run that has ended, of its last evaluation: of the better weights of that.

    Raises:
        ValueError: it has no evaluation.
    """
    evaluations = [row for row in read_log(folder) if row["kind"] == "eval"]
    if not evaluations:
        raise ValueError(f"{folder}: nothing was measured: a study needs data with a split val, and evaluations")
    by_step: dict[int, Mapping[str, Any]] = {}
    for row in evaluations:
        if row["step"] not in by_step or row[measure] > by_step[row["step"]][measure]:
            by_step[row["step"]] = row
    last = by_step[max(by_step)]
    numbers = {name: float(last[name]) for name in SHOWN_NUMBERS if last.get(name, -1) >= 0}
    if "segm" in last:
        numbers["mask AP"] = float(last["segm"]["AP"])
    curve = ([float(step) for step in by_step], [float(row[measure]) for row in by_step.values()])
    content = RunNumbers(dict(recipe), numbers, curve, seconds)._asdict()
    write_text(folder / RECORD, json.dumps(content, indent=1) + "\n")


def read_record(folder: Path) -> RunNumbers | None:
    """Read what was kept of a run; None where it has not ended."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps, values = content["curve"]
        return RunNumbers(content["recipe"], content["numbers"], (steps, values), content["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: delete it, and the run is done again") from error


def collect_results(
    study: Study,
    folder: Path,
    costs: Mapping[str, tuple[int, float]],
    latencies: Mapping[str, float],
    measure: str,
) -> StudyResult:
    """Read the finished runs of a study.

    Args:
        study: what was varied.
        folder: of the study.
        costs: parameters and GMAC of each variation.
        latencies: milliseconds, of variations where they were measured.
        measure: name of the number that is compared.
    """
    runs: dict[str, dict[int, RunNumbers]] = {
        name: {seed: own for seed in study.seeds if (own := read_record(run_folder(folder, name, seed))) is not None}
        for name in study.variations
    }
    compared = {
        name: {seed: one.numbers[measure] for seed, one in own.items() if measure in one.numbers}
        for name, own in runs.items()
    }
    base = compared[study.against]
    variations = tuple(
        VariationResult(
            name=name,
            numbers={seed: one.numbers for seed, one in own.items()},
            curves={seed: one.curve for seed, one in own.items()},
            seconds={seed: one.seconds for seed, one in own.items()},
            difference=None if name == study.against else paired_difference(compared[name], base),
            params=costs[name][0],
            gmac=costs[name][1],
            latency_ms=latencies.get(name),
        )
        for name, own in runs.items()
    )
    return StudyResult(study=study, folder=folder, variations=variations, measure=measure)
