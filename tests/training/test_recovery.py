"""Steps whose numbers are not finite: left out, named, written down, and not too many."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.ops.finite import NotFiniteError
from boxwright.structures import Batch
from boxwright.training import log, loop
from boxwright.training.batches import training_batches
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.checkpoint import Progress
from boxwright.training.failed_step import FAILED_STEP, read_failed_step
from boxwright.training.failures import KeptBuffers
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.training.step import StepResult, train_step
from boxwright.workflows.replay import replay
from equality import assert_equal, timeless

MakeRun = Callable[..., Run]

SHORT: dict[str, Any] = {"steps": 8, "schedule__evaluations": 2, "schedule__warmup_steps": 100}


@pytest.fixture(autouse=True)
def every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOG_INTERVAL", 0.0)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a pixel of the batches of some steps, counted from 0, infinite."""

    def poison(*steps: int) -> None:
        def poisoned(run: Run, rank: Any, schedule: Any, progress: Progress) -> Iterator[Batch]:
            for step, batch in enumerate(training_batches(run, rank, schedule, progress), progress.step):
                if step in steps:
                    batch.images[0, 0, 0, 0] = math.inf
                yield batch

        monkeypatch.setattr(loop, "training_batches", poisoned)

    return poison


def without_counts(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "progress": {**content["progress"], "failed_steps": 0}}


@pytest.mark.filterwarnings("ignore:step .* is left out")
def test_a_run_with_a_poisoned_batch_equals_one_that_does_nothing_at_this_step(
    make_run: MakeRun, poison: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, interrupted before or after it too."""
    poison(5)
    whole = make_run("whole", **SHORT)
    progress = run_training(whole)
    assert (progress.step, progress.failed_steps) == (8, 1)

    class Interrupts(Callback):
        def on_step(self, event: StepEvent) -> None:
            if event.step in (5, 7):
                signal.raise_signal(signal.SIGINT)

    for part in range(2):
        with pytest.raises(Interrupted):
            run_training(
                replace(make_run("broken", weights_seed=part, **SHORT), callbacks=[Interrupts()]), resume=part > 0
            )
    progress = run_training(make_run("broken", weights_seed=3, **SHORT), resume=True)
    assert progress.failed_steps == 1
    assert_equal(read_checkpoint(make_run("broken").folder / LAST), read_checkpoint(whole.folder / LAST))
    assert timeless(read_log(make_run("broken").folder)) == timeless(read_log(whole.folder))

    poison()
    calls: list[int] = []

    def without_step_6(*arguments: Any) -> StepResult:
        calls.append(1)
        if len(calls) == 6:
            raise NotFiniteError
        return train_step(*arguments)

    monkeypatch.setattr(loop, "train_step", without_step_6)
    monkeypatch.setattr(loop.Recovery, "recover", lambda *_: None)
    skipped = make_run("skipped", **SHORT)
    run_training(skipped)
    assert len(calls) == 8
    assert_equal(
        without_counts(read_checkpoint(skipped.folder / LAST)), without_counts(read_checkpoint(whole.folder / LAST))
    )


@pytest.mark.filterwarnings("ignore:step .* is left out")
def test_three_steps_are_left_out_and_the_fourth_ends_the_run(make_run: MakeRun, poison: Callable[..., None]) -> None:
    run = make_run(**SHORT)
    poison(1, 2, 4, 6)
    with pytest.raises(
        ValueError,
        match=r"^training has diverged: loss nan, .*; train again with a lower train\.lr.*; step 7 is the 4th that "
        r"failed: in the images, 1 of \d+ values of float32 are not finite; .*`boxwright replay .*failed_step\.pt`; "
        r"step 6 is saved in .*$",
    ):
        run_training(run)
    assert read_failed_step(run.folder / FAILED_STEP).step == 6


@pytest.mark.filterwarnings("ignore:step .* is left out")
def test_the_count_goes_on_when_the_run_is_resumed(make_run: MakeRun, poison: Callable[..., None]) -> None:
    poison(0, 1, 2, 6)
    run_training(make_run(**SHORT | {"steps": 4}))
    content = read_checkpoint(make_run().folder / LAST)
    assert content["progress"]["failed_steps"] == 3
    content["progress"]["steps"] = 8
    torch.save(content, make_run().folder / LAST)
    with pytest.raises(ValueError, match="step 7 is the 4th that failed"):
        run_training(make_run(**SHORT), resume=True)


class TestReplay:
    @pytest.mark.filterwarnings("ignore:step .* is left out")
    def test_an_overflow_is_the_same_and_names_its_module(self, make_run: MakeRun) -> None:
        run = make_run(**SHORT | {"steps": 2})
        norm = next(path for path, m in run.detector.head.named_modules() if isinstance(m, nn.LayerNorm))
        with torch.no_grad():
            run.detector.head.get_submodule(norm).weight.fill_(3e38)
        statistics = {name: x.clone() for name, x in run.detector.named_buffers() if "running" in name}
        assert statistics
        run_training(run)
        result = replay(run.folder)
        assert result.step == 2
        assert len(result.image_ids) == run.options.batch_size
        (one,) = result.repeats
        assert one.precision == "float32"
        assert not math.isfinite(sum(one.losses.values()))
        assert one.overflow is not None
        assert (one.overflow.kind, one.overflow.name, one.overflow.part) == ("output", f"head.{norm}", "LayerNorm")
        assert one.overflow.largest == pytest.approx(3e38)
        assert result.failure == one.overflow.describe()
        # Neither weights nor statistics have moved.
        for name, buffer in run.detector.named_buffers():
            if name in statistics:
                assert torch.equal(buffer, statistics[name]), name

    def test_one_file_no_larger_than_it_must_be(self, make_run: MakeRun, poison: Callable[..., None]) -> None:
        run = make_run(**SHORT)
        poison(1, 3)
        with pytest.warns(UserWarning, match=r"^step [24] is left out \([12] of at most 3\): .* boxwright replay"):
            run_training(run)
        assert read_failed_step(run.folder / FAILED_STEP).step == 3
        batch = read_failed_step(run.folder / FAILED_STEP).batch
        tensors = [*run.detector.state_dict().values(), batch.images]
        size = sum(x.numel() * x.element_size() for x in tensors)
        assert (run.folder / FAILED_STEP).stat().st_size < 1.1 * size + 300 * len(tensors)
        (one,) = replay(run.folder / FAILED_STEP).repeats
        assert one.overflow is not None
        assert one.overflow.kind == "image"

    def test_what_is_not_repeated_is_said(self, make_run: MakeRun) -> None:
        """A hook that breaks one step alone, as a fault of the machine would."""
        run, calls = make_run(**SHORT | {"steps": 3}), []

        def break_second(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            calls.append(1)
            return {name: x * math.nan for name, x in output.items()} if len(calls) == 2 else output

        handle = run.detector.backbone.register_forward_hook(break_second)
        with pytest.warns(UserWarning, match="repeated, the same step has finite numbers"):
            run_training(replace(run, evaluate=None))
        handle.remove()
        (one,) = replay(run.folder).repeats
        assert one.overflow is None
        assert math.isfinite(sum(one.losses.values()))

    def test_other_files(self, tmp_path: Path, make_run: MakeRun, poison: Callable[..., None]) -> None:
        (tmp_path / "any.pt").write_text("nothing")
        with pytest.raises(ValueError, match=r"any\.pt: not a file of weights"):
            replay(tmp_path / "any.pt")
        with pytest.raises(FileNotFoundError, match=r"failed_step\.pt: no such file"):
            replay(tmp_path)
        torch.save({"format": "boxwright"}, tmp_path / "any.pt")
        with pytest.raises(ValueError, match=r"any\.pt: no step that failed; training leaves one"):
            replay(tmp_path / "any.pt")
        run = make_run(**SHORT | {"steps": 2})
        poison(0)
        with pytest.warns(UserWarning, match="is left out"):
            run_training(run)
        content = torch.load(run.folder / FAILED_STEP, weights_only=True)
        for key in content:
            broken = {name: value for name, value in content.items() if name != key}
            torch.save(broken, tmp_path / "any.pt")
            with pytest.raises(ValueError, match=r"any\.pt: (damaged|no step|of another release)"):
                replay(tmp_path / "any.pt")
            torch.save({**content, key: 3}, tmp_path / "any.pt")
            if key not in ("step", "noise_seed", "device", "threads", "failure"):
                with pytest.raises(ValueError, match=r"any\.pt: "):
                    replay(tmp_path / "any.pt")


class TestLostState:
    def test_a_run_goes_back_to_its_checkpoint(self, make_run: MakeRun) -> None:
        """Once more the same: the run then equals one to which nothing has happened."""

        class Breaks(Callback):
            done = False

            def on_step(self, event: StepEvent) -> None:
                if event.step == 6 and not self.done:
                    self.done = True
                    with torch.no_grad():
                        next(broken.detector.parameters()).fill_(math.nan)

        whole = make_run("whole", **SHORT)
        run_training(whole)
        broken = replace(make_run("broken", **SHORT), callbacks=[Breaks()])
        with pytest.warns(UserWarning, match=r"not finite: going back to step 4 \(1 of at most 3\)"):
            progress = run_training(broken)
        assert progress.failed_steps == 1
        assert_equal(
            without_counts(read_checkpoint(broken.folder / LAST)), without_counts(read_checkpoint(whole.folder / LAST))
        )
        assert timeless(read_log(broken.folder)) == timeless(read_log(whole.folder))

    def test_without_a_checkpoint_it_ends(self, make_run: MakeRun) -> None:
        run = make_run(**SHORT)
        with torch.no_grad():
            next(run.detector.parameters()).fill_(math.nan)
        # What is not finite from the beginning may be meant so: the steps fail one by one.
        with (
            pytest.warns(UserWarning, match="in the weights of"),
            pytest.raises(ValueError, match="the 4th that failed"),
        ):
            run_training(run)

    def test_it_is_never_saved(self, make_run: MakeRun) -> None:
        class Breaks(Callback):
            def on_step(self, _event: StepEvent) -> None:
                next(run.detector.buffers()).fill_(math.inf)

        run = make_run(**SHORT | {"steps": 1})
        with pytest.raises(ValueError, match="after step 1, weights or moments of the optimizer are not finite"):
            run_training(replace(run, callbacks=[Breaks()]))
        assert not (run.folder / LAST).exists()


def test_processes_leave_a_step_out_together(make_run: MakeRun, tmp_path: Path) -> None:
    """A batch is bad in the second of two: both do nothing at this step, the first says so, the second writes."""
    run = replace(make_run(**SHORT | {"steps": 3, "schedule__evaluations": 1}), evaluate=None)
    torch.save(run, tmp_path / "run.in")
    worker = Path(__file__).with_name("poisoned_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(worker), str(tmp_path / "run.in")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (first, lines, weights), (second, silent, others) = (
        torch.load(tmp_path / f"rank_{rank}.out", weights_only=True) for rank in (0, 1)
    )
    assert (first, second) == (1, 1)
    (line,) = lines
    assert line.startswith("step 2 is left out (1 of at most 3)")
    assert "in the images" in line
    assert silent == []
    assert all(torch.equal(weights[name], others[name]) for name, _ in run.detector.named_parameters())
    failed = read_failed_step(run.folder / FAILED_STEP)
    assert failed.totals is not None
    assert failed.totals.images == run.options.batch_size
    assert not bool(failed.batch.images.isfinite().all())


def test_a_detector_may_have_no_buffers() -> None:
    detector = nn.Linear(1, 1)
    kept, before = KeptBuffers(detector), detector.weight.item()
    for _ in range(2):
        kept.keep()
    kept.restore()
    assert detector.weight.item() == before
