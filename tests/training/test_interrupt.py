"""Signals and failures in the middle of a run: the state is saved, and the run goes on as if nothing had been."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from boxwright.structures import Batch
from boxwright.training import interrupt, loop
from boxwright.training.checkpoint import Progress, RunCheckpoints
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.step import train_step
from equality import assert_equal, timeless
from training.conftest import MakeRun, WeightSum, read_run


class TestInterrupted:
    @pytest.mark.parametrize("number", interrupt.SIGNALS, ids=lambda number: number.name)
    def test_every_signal_is_heard_at_once_and_saves_after_the_step(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
    ) -> None:
        """A second press changes nothing."""
        heard: list[str] = []

        def impatient(*arguments: Any) -> Any:
            for _ in range(2):
                signal.raise_signal(number)
                heard.append(capfd.readouterr().err)
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", impatient)
        before = [signal.getsignal(one) for one in interrupt.SIGNALS]
        run = replace(make_run(steps=3), console=Console(file=io.StringIO()))
        with pytest.raises(Interrupted) as caught:
            run_training(run)
        name = signal.Signals(number).name
        assert heard == [
            f"\n{name}: the state is saved after this step ...\n",
            f"\n{name}: still in the step after which the state is saved ...\n",
        ]
        assert caught.value.number == number
        assert [signal.getsignal(one) for one in interrupt.SIGNALS] == before
        assert read_run(run, "last.pt")["progress"]["step"] == 1

    def test_a_signal_that_is_ignored_stays_so(self, make_run: MakeRun, interrupt_at: Callable[..., None]) -> None:
        """As under nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            interrupt_at(1, signal.SIGHUP)
            assert run_training(make_run(steps=2)).step == 2
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_an_evaluation_is_left_at_once_and_made_again(self, make_run: MakeRun) -> None:
        options: dict[str, Any] = {"steps": 4, "schedule__evaluations": 2}
        whole = make_run("whole", **options)
        run_training(whole)

        class Slow(WeightSum):
            def __call__(self, _detector: Any, _limit: int | None = None) -> dict[str, Any]:
                signal.raise_signal(signal.SIGTERM)
                raise AssertionError("the evaluation went on")

        broken = make_run("broken", **options)
        with pytest.raises(Interrupted):
            run_training(replace(broken, evaluate=Slow()))
        stored = read_run(broken, "last.pt")["progress"]
        assert (stored["step"], stored["evaluation_due"]) == (2, True)
        assert not (broken.folder / "best.safetensors").exists()

        broken = make_run("broken", weights_seed=9, **options)
        run_training(broken, resume=True)
        for name in ("last.pt", "best.safetensors"):
            assert_equal(read_run(broken, name), read_run(whole, name))
        assert timeless(read_log(broken.folder)) == timeless(read_log(whole.folder))

    def test_in_the_last_step_the_evaluation_is_left_to_do(
        self, make_run: MakeRun, interrupt_at: Callable[..., None]
    ) -> None:
        interrupt_at(2)
        run = make_run(steps=2, schedule__evaluations=1)
        with pytest.raises(Interrupted):
            run_training(run)
        assert not [row for row in read_log(run.folder) if row["kind"] == "eval"]
        assert run_training(make_run(steps=2, schedule__evaluations=1), resume=True).step == 2
        assert [row["step"] for row in read_log(run.folder) if row["kind"] == "eval"] == [2]


class TestFailure:
    """Each saves what is whole, and says so in one line."""

    OPTIONS: ClassVar[dict[str, Any]] = {"steps": 4, "schedule__evaluations": 1}

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (MemoryError(), "there was no memory for a step: "),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "there was no memo"),
            (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a process that reads images was"),
            (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:5"), "another process of the run has ended; "),
            (FileNotFoundError(2, "No such file or directory", "a/b.jpg"), "a/b.jpg: No such file or directory; "),
            (OSError(28, "No space left on device", "x.pt"), "x.pt: No space left on device; "),
            (ValueError("a.png: cannot be decoded"), "a.png: cannot be decoded; "),
        ],
        ids=["memory", "allocator", "worker", "process", "image", "disk", "data"],
    )
    def test_a_failure_saves_the_state_before_it(
        self,
        make_run: MakeRun,
        monkeypatch: pytest.MonkeyPatch,
        interrupt_at: Callable[..., None],
        error: Exception,
        message: str,
    ) -> None:
        whole, broken = make_run("whole", **self.OPTIONS), make_run("broken", **self.OPTIONS)
        run_training(whole)
        calls = iter(range(1, 100))

        def fail(*arguments: Any) -> Any:
            if next(calls) == 3:
                arguments[0](arguments[3].images, None, arguments[3].targets)  # changes statistics
                raise error
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", fail)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            run_training(broken)
        assert str(caught.value).endswith(f"; step 2 is saved in {broken.folder}, and --resume goes on from it")
        assert "\n" not in str(caught.value)
        interrupt_at(1000)
        broken = make_run("broken", weights_seed=99, **self.OPTIONS)
        run_training(broken, resume=True)
        for name in ("last.pt", "best.safetensors"):
            assert_equal(read_run(broken, name), read_run(whole, name))

    def test_between_two_steps_it_saves_the_state_after_the_last(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the statistics of norms of that step, as an image that cannot be read shows."""
        whole, broken = make_run("whole", **self.OPTIONS), make_run("broken", **self.OPTIONS)
        run_training(whole)
        real = loop.training_batches

        def end_early(*arguments: Any) -> Iterator[Batch]:
            yield from islice(real(*arguments), 2)
            raise FileNotFoundError(2, "No such file or directory", "a/b.jpg")

        monkeypatch.setattr(loop, "training_batches", end_early)
        with pytest.raises(ValueError, match="step 2 is saved"):
            run_training(broken)
        monkeypatch.setattr(loop, "training_batches", real)
        broken = make_run("broken", weights_seed=99, **self.OPTIONS)
        run_training(broken, resume=True)
        for name in ("last.pt", "best.safetensors"):
            assert_equal(read_run(broken, name), read_run(whole, name))

    def test_a_fault_of_the_code_stays_what_it_is(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = iter(range(1, 100))
        monkeypatch.setattr(loop, "train_step", lambda *a: train_step(*a) if next(calls) == 1 else 1 / 0)
        run = make_run(**self.OPTIONS)
        with pytest.raises(ZeroDivisionError) as caught:
            run_training(run)
        assert caught.value.__notes__ == [f"step 1 is saved in {run.folder}, and --resume goes on from it"]
        assert read_run(run, "last.pt")["progress"]["step"] == 1

    def test_in_the_first_step_there_is_nothing_to_save(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise ValueError("no")

        monkeypatch.setattr(loop, "train_step", fail)
        run = make_run(**self.OPTIONS)
        with pytest.raises(ValueError, match=r"^no; nothing is saved yet$"):
            run_training(run)
        assert not (run.folder / "last.pt").exists()

    def test_what_cannot_be_saved_is_said(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(steps=4, schedule__evaluations=2)
        save, calls = RunCheckpoints.save, iter(range(1, 100))

        def fill(self: RunCheckpoints, progress: Progress, *, best: bool) -> list[Path]:
            if next(calls) > 1:
                raise OSError(28, "No space left on device", "last.pt")
            return save(self, progress, best=best)

        monkeypatch.setattr(RunCheckpoints, "save", fill)
        with pytest.raises(ValueError, match=r"No space left on device; step 2 is saved in ") as caught:
            run_training(run)
        assert "\n" not in str(caught.value)
        assert read_run(run, "last.pt")["progress"]["step"] == 2
