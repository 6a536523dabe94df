"""Runs that repeat bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from boxwright.training.checkpoint import Progress
from boxwright.training.run import Run

CUBLAS_SETTING = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Without it, matrix products on a GPU may differ from one time to the next; read when the first is computed."""


@contextmanager
def deterministic(run: Run, device: torch.device, progress: Progress) -> Iterator[None]:
    """Compute alike each time where ``train.runtime.deterministic`` asks for it; global settings come back.

    Sums over threads depend on how many there are: a run that is resumed takes as many as it began with. On a GPU some
    operations have no such form; torch then warns, and names them.

    Args:
        run: its options count.
        device: of the training.
        progress: of the run; remembers the number of threads.
    """
    if not run.options.runtime.deterministic:
        yield
        return
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    progress.threads = progress.threads or threads
    try:
        if device.type == "cuda":
            os.environ.setdefault(*CUBLAS_SETTING)
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        torch.backends.cudnn.benchmark = False
        torch.set_num_threads(progress.threads)
        _announce(run, device, progress.threads)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)


def _announce(run: Run, device: torch.device, threads: int) -> None:
    """Say what a repetition needs."""
    if run.console is None:
        return
    needs = f"the same number of threads, {threads} (OMP_NUM_THREADS={threads})"
    if device.type == "cuda":
        needs = "the same kind of GPU; torch warns of operations that are not repeatable there"
    run.console.print(f"deterministic: bit-equal with {needs}", highlight=False, soft_wrap=True)
