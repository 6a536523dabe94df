"""Benchmark: latency, throughput and memory of models and exported files, side by side in one run."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from boxwright.cpu_quota import count_allowed_cores, describe_quota
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.exporting.certificate import find_certificate, hash_exported
from boxwright.workflows.bench_candidates import BenchGrid, BenchInput, Candidate, list_candidates
from boxwright.workflows.bench_process import BenchProcess, Readiness, start_process
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.memory_limits import RESERVE_BYTES, free_memory
from boxwright.workflows.observer import Observer

ROUND_SECONDS = 0.5
"""Time of a candidate in each round, in which it runs at least once."""

MOST_REPEATS = 100
"""Runs of one round at most."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchRow:
    """Measurements of one candidate.

    Args:
        candidate: what ran, and how.
        precision: that it computed in.
        input: what came in, in words.
        seconds: of each batch, by round.
        peak_bytes: that its process, or of a GPU its pool, had at most; None where the system does not say.
        ratio: of its latency to that of the first candidate: the median over the rounds.
        ap: AP, or top-1, of its certificate, in [0, 1]; None where there is no certificate.
    """

    candidate: Candidate
    precision: str
    input: str
    seconds: tuple[tuple[float, ...], ...]
    peak_bytes: int | None
    ratio: float
    ap: float | None = None

    @property
    def median(self) -> float:
        """Seconds of a batch: the median of all runs."""
        return float(np.median(self._all()))

    @property
    def p95(self) -> float:
        """Seconds of a batch that 95 % of all runs stay within."""
        return float(np.percentile(self._all(), 95))

    @property
    def throughput(self) -> float:
        """Images per second, over all runs."""
        seconds = self._all()
        return self.candidate.batch_size * len(seconds) / sum(seconds)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``; times in milliseconds."""
        own = asdict(self.candidate)
        settings = {name: own[name] for name in ("runtime", "threads", "batch_size", "image_size", "device")}
        return {
            "source": self.candidate.title,
            **settings,
            "precision": self.precision,
            "input": self.input,
            "median_ms": self.median * 1e3,
            "p95_ms": self.p95 * 1e3,
            "images_per_second": self.throughput,
            "peak_bytes": self.peak_bytes,
            "ratio": self.ratio,
            "AP": self.ap,
            "seconds": [list(one) for one in self.seconds],
        }

    def _all(self) -> list[float]:
        return [one for in_round in self.seconds for one in in_round]


@dataclass(frozen=True, eq=False)
class BenchResult:
    """Measurements of all candidates, in their order.

    Args:
        rows: one for each.
        machine: processor, cores and versions.
        uncertified: names of sources without a certificate, each once.
    """

    rows: tuple[BenchRow, ...]
    machine: Mapping[str, Any]
    uncertified: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``."""
        return {
            "machine": dict(self.machine),
            "uncertified": list(self.uncertified),
            "rows": [row.to_json() for row in self.rows],
        }


def bench(
    models: str | Path | Detector | Iterable[str | Path | Detector],
    *,
    batch_sizes: Sequence[int] = (1,),
    image_sizes: Sequence[int] = (),
    image_shapes: Sequence[tuple[int, int]] = ((480, 640),),
    threads: Sequence[int] = (),
    precisions: Sequence[str] = ("fp32",),
    runtimes: Sequence[str] = (),
    input: BenchInput = "bytes",
    rounds: int = 10,
    device: str = "cpu",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
) -> BenchResult:
    """Measure latency, throughput and peak memory of models and exported files, in all combinations of settings.

    Each candidate has a process of its own. Rounds go over all candidates in turn, so that whatever else the machine
    does in the meantime meets all of them alike. Images are noise.

    Args:
        models: sources that ``boxwright.load`` takes, detectors, or exported files; one or several.
        batch_sizes: images at a time.
        image_sizes: of the network inputs of models; a model's own where empty. Files have their own.
        image_shapes: (height, width) of the images that come in.
        threads: that compute; as many as there are cores to use where empty.
        precisions: of models: fp32, bf16, fp16. Files have their own.
        runtimes: of models eager and folded, of files onnxruntime and openvino, by what each was made for; all where
            empty.
        input: of models: ``bytes`` of images, or ``float`` network inputs. Files take what they were exported for.
        rounds: over all candidates; in each, one runs for half a second, at least once and at most 100 times.
        device: of models; exported files run on the CPU.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: not a model or a file, a candidate fails, or memory does not last for all at once.
    """
    if rounds < 1:
        raise ValueError(f"rounds is at least 1, not {rounds}")
    observer = observer or Observer()
    grid = BenchGrid(
        batch_sizes=batch_sizes,
        image_sizes=image_sizes,
        image_shapes=image_shapes,
        threads=threads or (max(1, math.floor(count_allowed_cores())),),
        precisions=precisions,
        runtimes=runtimes,
        input=input,
    )
    for line in filter(None, map(describe_quota, sorted(set(grid.threads)))):
        observer.note(line)
    with TemporaryDirectory() as folder:
        sources = _name_sources(models, Path(folder))
        used = str(choose_device(device))
        candidates = list_candidates(sources, grid, device=used, trusted=tuple(trusted))
        rows = _measure(candidates, rounds, observer)
    uncertified = dict.fromkeys(row.candidate.title for row in rows if row.ap is None)
    return BenchResult(tuple(rows), describe_machine(), tuple(uncertified))


def _name_sources(
    models: str | Path | Detector | Iterable[str | Path | Detector], folder: Path
) -> list[tuple[str, str | None]]:
    """Name sources for processes: detectors are saved into the folder."""
    listed = [models] if isinstance(models, str | Path | Detector) else list(models)
    if not listed:
        raise ValueError("nothing to measure: name a model or an exported file")
    sources: list[tuple[str, str | None]] = []
    for number, model in enumerate(listed, start=1):
        if isinstance(model, Detector):
            model.save(path := folder / f"{number}.safetensors")
            sources.append((str(path), f"detector {number}"))
        else:
            sources.append((str(model), None))
    return sources


def _measure(candidates: Sequence[Candidate], rounds: int, observer: Observer) -> list[BenchRow]:
    """Start all processes, one after the other, and then run rounds over them."""
    with ExitStack() as stack:
        processes: list[BenchProcess] = []
        ready: list[Readiness] = []
        with observer.track("starting") as progress:
            for candidate in candidates:
                _check_memory([one.peak or 0 for one in ready], len(candidates))
                processes.append(stack.enter_context(start_process(candidate)))
                ready.append(processes[-1].prepare())
                progress(len(ready), len(candidates))
        seconds: list[list[tuple[float, ...]]] = [[] for _ in candidates]
        with observer.track("measuring") as progress:
            for number in range(rounds):
                for index, process in enumerate(processes):
                    repeats = min(MOST_REPEATS, math.ceil(ROUND_SECONDS / max(ready[index].seconds, 1e-6)))
                    seconds[index].append(tuple(process.run_round(repeats)))
                progress(number + 1, rounds)
    medians = np.array([[np.median(one) for one in own] for own in seconds])
    ratios = np.median(medians / medians[0], axis=1)
    return [
        BenchRow(
            candidate=candidate,
            precision=one.precision,
            input=one.input,
            seconds=tuple(own),
            peak_bytes=one.peak,
            ratio=float(ratio),
            ap=_read_ap(candidate),
        )
        for candidate, one, own, ratio in zip(candidates, ready, seconds, ratios, strict=True)
    ]


def _check_memory(peaks: Sequence[int], count: int) -> None:
    free = free_memory()
    if peaks and free is not None and free.bytes < max(peaks) + RESERVE_BYTES:
        raise ValueError(
            f"{len(peaks)} of {count} candidates fill the memory, {free.bytes / 2**30:.1f} GiB of which are free: "
            "measure fewer at a time"
        )


def _read_ap(candidate: Candidate) -> float | None:
    """Read the AP of a file from its certificate; None where it has none, or an older file had it."""
    path = find_certificate(candidate.source)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sha256, numbers = content["sha256"], content["file"]
        ap = float(numbers.get("AP", numbers.get("top1")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no certificate: export the file again with --verify") from error
    return ap if sha256 == hash_exported(Path(candidate.source)) else None
