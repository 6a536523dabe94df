"""Deterministic runs: bit-equal, with the number of threads that they began with, and without a trace afterward."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.interrupt import Interrupted
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from equality import assert_equal

MakeRun = Callable[..., Run]

SHORT: dict[str, Any] = {"steps": 5, "schedule__evaluations": 1, "runtime__deterministic": True}


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Listens(Callback):
    """Remembers the settings of each step, and interrupts after one."""

    def __init__(self, interrupt_after: int = 0) -> None:
        self.settings: list[tuple[bool, int]] = []
        self.interrupt_after = interrupt_after

    def on_step(self, event: StepEvent) -> None:
        self.settings.append((torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()))
        if event.step == self.interrupt_after:
            signal.raise_signal(signal.SIGINT)


def test_a_run_is_repeated_bit_by_bit_also_when_it_goes_on_with_other_threads(make_run: MakeRun) -> None:
    torch.set_num_threads(1)
    whole, broken = make_run("whole", **SHORT), make_run("broken", **SHORT)
    progress = run_training(whole)
    assert progress.threads == 1
    with pytest.raises(Interrupted):
        run_training(replace(broken, callbacks=[Listens(interrupt_after=2)]))
    torch.set_num_threads(2)
    listens = Listens()
    run_training(replace(make_run("broken", weights_seed=9, **SHORT), callbacks=[listens]), resume=True)
    assert listens.settings == [(True, 1)] * 3
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert_equal(read_checkpoint(broken.folder / LAST), read_checkpoint(whole.folder / LAST))


def test_settings_come_back_after_an_error_and_are_left_alone_otherwise(make_run: MakeRun) -> None:
    class Fails(Callback):
        def on_step(self, event: StepEvent) -> None:
            raise KeyError(event.step)

    console = Console(file=io.StringIO(), width=200)
    torch.backends.cudnn.benchmark = True
    with pytest.raises(KeyError):
        run_training(replace(make_run(**SHORT), callbacks=[Fails()], console=console))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    threads = torch.get_num_threads()
    assert f"the same number of threads, {threads} (OMP_NUM_THREADS={threads})" in console.file.getvalue()  # type: ignore[attr-defined]

    listens = Listens()
    progress = run_training(
        replace(make_run("free", **SHORT | {"steps": 1, "runtime__deterministic": False}), callbacks=[listens])
    )
    assert listens.settings == [(False, threads)]
    assert progress.threads == 0
