"""Counts of a service in the text form of Prometheus, together over all of its processes."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

CountTable = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Counts of all processes: a row for each."""

STATUSES = (200, 400, 401, 404, 405, 408, 411, 413, 421, 429, 499, 500, 503, 504)
"""Statuses of answers; 499 stands for clients that went away before theirs."""

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of seconds from the beginning of a request to its answer."""

_COUNTERS = {
    "images_total": "images that were predicted",
    "detections_total": "detections above the thresholds of requests",
    "batches_total": "batches that went through the model",
    "model_seconds_total": "seconds that the model was busy",
    "received_bytes_total": "bytes of bodies",
}

_GAUGES = {
    "images_in_work": "images that are taken and not answered yet",
    "body_bytes_in_memory": "bytes of bodies that are being received or in work",
    "ready": "processes that are ready",
}

_REQUESTS = tuple(f"requests {status}" for status in STATUSES)
_LATENCIES = (*(f"latency {bound:g}" for bound in BUCKETS), "latency +Inf", "latency sum")
_COLUMNS = (*_COUNTERS, *_GAUGES, *_REQUESTS, *_LATENCIES)
_INDEX = {name: index for index, name in enumerate(_COLUMNS)}


class Metrics:
    """Counts of one process, in memory that it has in common with the others; each writes in its own row.

    Args:
        table: (processes, counts), of ``make_counts``.
        row: of this process.
    """

    def __init__(self, table: CountTable | None = None, row: int = 0) -> None:
        self._table = make_counts(1) if table is None else table
        self._own = self._table[row]

    def __getitem__(self, name: str) -> float:
        """Return a count, summed over all processes."""
        return float(self._table[:, _INDEX[name]].sum())

    def add(self, name: str, amount: float = 1.0) -> None:
        """Add to a counter of this process."""
        self._own[_INDEX[name]] += amount

    def set(self, name: str, value: float) -> None:
        """Set a gauge of this process."""
        self._own[_INDEX[name]] = value

    def note_request(self, status: int, seconds: float) -> None:
        """Count an answered request; those with an image that was detected in go into the histogram too."""
        self.add(f"requests {status if status in STATUSES else 500}")
        if status == 200:
            bound = next((f"{bound:g}" for bound in BUCKETS if seconds <= bound), "+Inf")
            self.add(f"latency {bound}")
            self.add("latency sum", seconds)

    def seconds_per_image(self) -> float:
        """Return how long the model took for an image so far, on average."""
        return self["model_seconds_total"] / max(self["images_total"], 1.0)

    def to_text(self) -> str:
        """Write all counts in Prometheus' text form."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for kind, names in (("counter", _COUNTERS), ("gauge", _GAUGES)):
            for name, meaning in names.items():
                yield from _head(name, kind, meaning)
                yield f"boxwright_{name} {self[name]:.10g}"
        yield from _head("requests_total", "counter", "answers to /predict, by status; 499: the client went away")
        for status in STATUSES:
            yield f'boxwright_requests_total{{code="{status}"}} {self[f"requests {status}"]:.10g}'
        yield from _head("request_seconds", "histogram", "seconds until the answer of predicted requests")
        count = 0.0
        for bound in (*(f"{bound:g}" for bound in BUCKETS), "+Inf"):
            count += self[f"latency {bound}"]
            yield f'boxwright_request_seconds_bucket{{le="{bound}"}} {count:.10g}'
        yield f"boxwright_request_seconds_sum {self['latency sum']:.10g}"
        yield f"boxwright_request_seconds_count {count:.10g}"


def make_counts(processes: int) -> CountTable:
    """Make a table of zeros, a row for each process, in memory that processes forked from this one write to."""
    memory = mmap.mmap(-1, processes * len(_COLUMNS) * 8)
    return np.frombuffer(memory, dtype=np.float64).reshape(processes, len(_COLUMNS))


def clear_gauges(table: CountTable, row: int) -> None:
    """Set gauges of a process that has ended to zero; its counters stay."""
    for name in _GAUGES:
        table[row, _INDEX[name]] = 0.0


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP boxwright_{name} {meaning}", f"# TYPE boxwright_{name} {kind}"
