"""``train.runtime.compile``: when steps are compiled, what decides it, and that they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from flat_options import train_options

from boxwright.checkpoints import LAST
from boxwright.detector import Detector
from boxwright.structures import Targets
from boxwright.training import compilation
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.checkpoint import Progress
from boxwright.training.compilation import Compilation, check_compilation
from boxwright.training.distributed import Rank
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from training.conftest import read_run

MakeRun = Callable[..., Run]
SHAPE = torch.Size((1, 3, 10, 10))


class Clock:
    """Stands in for the time: a step of 100 pixels takes so long, as written and compiled."""

    def __init__(self, as_written: float, compiled: float) -> None:
        self.seconds = {False: as_written, True: compiled}
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``torch.compile`` that compiles nothing and lists what it was given."""
    given: list[str] = []

    def compile_nothing(method: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        assert not dynamic
        given.append(type(method.__self__).__name__)  # type: ignore[attr-defined]
        return lambda *arguments: method(*arguments)

    monkeypatch.setattr(compilation.torch, "compile", compile_nothing)
    monkeypatch.setattr(compilation, "has_compiler", lambda _device: True)
    monkeypatch.setattr(compilation, "MEASURED_STEPS", 3)
    return given


def do_steps(of: Compilation, run: Run, progress: Progress, clock: Clock, count: int) -> list[bool]:
    """Do steps; tell of each whether the backbone was compiled in it."""
    compiled = []
    for _ in range(count):
        with of.step(SHAPE, is_ramp_over=True):
            compiled.append("forward" in vars(run.detector.backbone))
            clock.now += clock.seconds[compiled[-1]]
        assert "forward" not in vars(run.detector.backbone)
        progress.step += 1
    return compiled


@pytest.mark.parametrize(
    ("compiled_seconds", "steps", "then", "decided"),
    [(0.7, 1300, True, "on"), (0.98, 1300, False, "off"), (1.3, 1300, False, "off"), (0.7, 1100, False, "off")],
    ids=["faster", "hardly faster", "slower", "too short a run"],
)
def test_auto_goes_on_with_what_is_faster(
    make_run: MakeRun,
    fake: list[str],
    monkeypatch: pytest.MonkeyPatch,
    compiled_seconds: float,
    steps: int,
    then: bool,
    decided: str,
) -> None:
    clock, notes = Clock(1.0, compiled_seconds), list[str]()
    monkeypatch.setattr(compilation.time, "monotonic", clock.monotonic)
    run = replace(make_run(batches__multi_scale=0.0), note=notes.append)
    progress = Progress(step=0, steps=steps, evaluations=1)
    of = Compilation(run, progress, 1)
    is_tried = steps == 1300
    # 3 as written, 3 compiled where 20 minutes are left, then what was decided.
    assert do_steps(of, run, progress, clock, 8) == [False] * 3 + [is_tried] * 3 + [then] * 2
    assert progress.compiled == decided
    assert fake == (["ResNetVD", "HybridEncoder"] if is_tried else [])
    says = f"take {compiled_seconds:.2f} of the time, so they {'stay compiled' if then else 'go on as written'}"
    assert [says in note for note in notes] == [True] * is_tried
    # A run that goes on has decided already.
    assert do_steps(Compilation(run, progress, 1), run, progress, clock, 4) == [then] * 4


@pytest.mark.usefixtures("fake")
def test_steps_that_compile_are_not_measured(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1.0, 0.5)
    monkeypatch.setattr(compilation.time, "monotonic", clock.monotonic)
    run, progress = make_run(batches__multi_scale=0.0), Progress(step=0, steps=1300, evaluations=1)
    of = Compilation(run, progress, 1)
    do_steps(of, run, progress, clock, 3)
    for _ in range(2):
        with of.step(SHAPE, is_ramp_over=True):
            clock.now += 60
            torch._dynamo.callback.callback_handler.run_start_callbacks(None)  # type: ignore[arg-type]
        assert of.compiled_last_step
    do_steps(of, run, progress, clock, 3)
    assert progress.compiled == "on"
    assert not of.compiled_last_step


def test_nothing_is_compiled_while_norms_change_their_momentum(make_run: MakeRun, fake: list[str]) -> None:
    run, progress = make_run(runtime__compile="on"), Progress(step=0, steps=9, evaluations=1)
    of = Compilation(run, progress, 1)
    with of.step(SHAPE, is_ramp_over=False):
        assert "forward" not in vars(run.detector.backbone)
    with of.step(SHAPE, is_ramp_over=True):
        assert "forward" in vars(run.detector.backbone)
    assert fake == ["ResNetVD", "HybridEncoder"]


@pytest.mark.usefixtures("fake")
def test_some_shapes_are_compiled(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "MAX_SHAPES", 2)
    run = make_run(runtime__compile="on")
    of, compiled = Compilation(run, Progress(step=0, steps=9, evaluations=1), 1), []
    for side in (32, 64, 96, 64, 32):
        with of.step(torch.Size((1, 3, 32, side)), is_ramp_over=True):
            compiled.append("forward" in vars(run.detector.backbone))
    assert compiled == [True, True, False, True, True]


@pytest.mark.parametrize(("mode", "suppressed"), [("on", False), ("auto", True)])
@pytest.mark.usefixtures("fake")
def test_options_of_torch_are_changed_in_compiled_steps_alone(make_run: MakeRun, mode: str, suppressed: bool) -> None:
    """Else every later compilation of the process would hide its errors, or tell a run that has ended."""
    config, callbacks = torch._dynamo.config, torch._dynamo.callback.callback_handler.start_callbacks
    before = config.suppress_errors, config.recompile_limit, list(callbacks)
    progress = Progress(step=0, steps=9, evaluations=1, compiled="on" if mode == "auto" else "")
    of = Compilation(make_run(runtime__compile=mode), progress, 1)
    for _ in range(2):
        with of.step(SHAPE, is_ramp_over=True):
            assert (config.suppress_errors, config.recompile_limit) == (suppressed, 2 * compilation.MAX_SHAPES)
            assert len(callbacks) == len(before[2]) + 1
        assert (config.suppress_errors, config.recompile_limit, callbacks) == before


def test_a_step_that_fails_leaves_the_modules_as_they_were(make_run: MakeRun, fake: list[str]) -> None:
    run = make_run(runtime__compile="on")
    of = Compilation(run, Progress(step=0, steps=9, evaluations=1), 1)
    with pytest.raises(ZeroDivisionError), of.step(SHAPE, is_ramp_over=True):
        raise ZeroDivisionError
    assert "forward" not in vars(run.detector.backbone)
    assert fake


@pytest.mark.parametrize(
    ("options", "world_size"), [({"runtime__compile": "off"}, 1), ({"runtime__deterministic": True}, 1), ({}, 2)]
)
def test_off_where_runs_have_to_be_equal_or_processes_wait_for_each_other(
    make_run: MakeRun,
    fake: list[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    world_size: int,
) -> None:
    run, progress = make_run(batches__multi_scale=0.0, **options), Progress(step=0, steps=9000, evaluations=1)
    of = Compilation(run, progress, world_size)
    clock = Clock(1.0, 0.5)
    monkeypatch.setattr(compilation.time, "monotonic", clock.monotonic)
    assert do_steps(of, run, progress, clock, 8) == [False] * 8
    assert not fake
    # Another run that goes on from here may decide.
    assert not progress.compiled


def test_what_does_not_go_together_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Rank(0, count, torch.device("cpu")) for count in (1, 2))
    monkeypatch.setattr(compilation, "has_compiler", lambda _device: True)
    with pytest.raises(ValueError, match=r"compile on does not go with train\.batches\.activation_checkpointing"):
        check_compilation(train_options(runtime__compile="on", batches__activation_checkpointing=True), one)
    sharded = train_options(runtime__compile="on", runtime__sharded=True)
    check_compilation(sharded, one)  # it has no effect in one process
    with pytest.raises(ValueError, match=r"compile on does not go with train\.runtime\.sharded"):
        check_compilation(sharded, two)


def test_a_compiler_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Rank(0, 1, torch.device("cpu"))
    monkeypatch.setattr(compilation.shutil, "which", lambda _name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        check_compilation(train_options(runtime__compile="on"), one)
    check_compilation(train_options(), one)  # where nothing is asked for, nothing is said


class Keeps(Callback):
    """Keeps the loss terms of each step."""

    def __init__(self) -> None:
        self.terms: list[dict[str, float]] = []

    def on_step(self, event: StepEvent) -> None:
        self.terms.append(event.losses)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Compilations that torch starts, listed."""
    if not compilation.has_compiler(torch.device("cpu")):
        pytest.skip("torch.compile needs a C++ compiler, and this machine has none (g++, clang++ or $CXX)")
    compiled: list[object] = []
    monkeypatch.setattr(torch._dynamo.callback.callback_handler, "start_callbacks", [compiled.append])
    return compiled


@pytest.mark.slow
def test_compiled_gradients_are_those_of_steps_as_written(make_run: MakeRun, graphs: list[object]) -> None:
    """In float64, for norms over the few values of small maps make much of the last bits of float32."""
    run = make_run(runtime__compile="on")
    detector = run.detector.double()
    of = Compilation(run, Progress(step=0, steps=9, evaluations=1), 1)
    for size in (32, 64, 96):
        num_compiled = len(graphs)
        images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
        boxes = torch.tensor([[5.0, 5, 30, 25], [2, 8, 20, 31]], dtype=torch.float64)
        targets = [
            Targets(torch.tensor([0, 2]), boxes, (size, size)),
            Targets(torch.tensor([1]), boxes[:1], (size, size)),
        ]
        written = compute_losses_and_gradients(detector, images, targets)
        with of.step(images.shape, is_ramp_over=True):
            compiled = compute_losses_and_gradients(detector, images, targets)
        assert len(graphs) - num_compiled in (2, 4)  # two modules, and the way back by itself or with the way there
        assert compiled[0] == pytest.approx(written[0], rel=1e-8)
        largest = max(gradient.abs().max() for gradient in written[1].values())
        for name, gradient in written[1].items():
            torch.testing.assert_close(compiled[1][name], gradient, rtol=1e-6, atol=1e-8 * largest.item(), msg=name)


def compute_losses_and_gradients(
    detector: Detector, images: torch.Tensor, targets: list[Targets]
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    torch.manual_seed(0)  # denoising queries
    detector.zero_grad()
    losses = detector.loss(detector(images, None, targets), targets)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: term.item() for name, term in losses.items()}, gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "multi_scale", "num_sizes", "tolerance"), [("float32", 0.5, 3, 1e-4), ("bfloat16", 0.0, 1, 0.1)]
)
def test_runs_with_compiled_steps_compute_the_same(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    graphs: list[object],
    precision: str,
    multi_scale: float,
    num_sizes: int,
    tolerance: float,
) -> None:
    """Of several sizes of images, with a bounded number of graphs.

    With a rate that moves nothing, for what is learned from the last bits decides which queries are selected later.
    Those of bfloat16 do so at once: what is compiled rounds less often.
    """
    monkeypatch.setattr("boxwright.training.norm_momentum.BATCHES", 0.2)
    options = {
        "steps": 8,
        "lr": 1e-12,
        "runtime__precision": precision,
        "batches__multi_scale": multi_scale,
        "schedule__no_aug_fraction": 0.0,
    }
    kept = {mode: Keeps() for mode in ("off", "on")}
    for mode, callback in kept.items():
        run_training(replace(make_run(mode, runtime__compile=mode, **options), callbacks=[callback]))
    # Two modules, there and back; of a module that breaks in two there would be more.
    assert 0 < len(graphs) <= 4 * num_sizes
    written, compiled = kept["off"].terms, kept["on"].terms
    for step, terms in enumerate(written):
        assert compiled[step] == pytest.approx(terms, rel=tolerance, abs=tolerance)
    assert compiled != written  # sums have another order
    stored = read_run(make_run("on"), LAST)["model"]
    assert all(not name.startswith("_orig") for name in stored)
