"""Devices, precisions, and two processes that do what one does."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from flat_options import train_options
from partition_cases import FAMILIES, Step, assert_same_step, family_run, first_batch, make_step
from torch import nn
from torchrun import torchrun

import boxwright
from boxwright.checkpoints import read_checkpoint
from boxwright.compose.train_options import TrainOptions
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.layers.conv import ConvNorm
from boxwright.structures import Batch, Targets
from boxwright.training.batches import training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank, init_distributed
from boxwright.training.log import read_log
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule
from boxwright.training.step import train_step
from boxwright.training.sync_norms import SyncedBatchNorm, sync_norms
from random_weights import shake

CPU = torch.device("cpu")
WORKER = Path(__file__).with_name("two_processes.py")

PLAIN: dict[str, Any] = {"head.denoising.num_queries": 0}
SMALL_EFFICIENTDET: dict[str, Any] = {
    "image_size": 64,
    "backbone.model": "test_efficientnet",
    "backbone.drop_path": 0.0,
    "neck.out_channels": 16,
    "neck.repeats": 1,
    "head.num_convs": 1,
}


class Case(NamedTuple):
    """A step in two processes.

    Args:
        recipe: of the detector; the small RT-DETR of these tests where None.
        overrides: of the recipe.
        empty: images without objects; the first two are those of the first process.
        options: of training.
        fixed: norms take their statistics as they are, not from the batch.
    """

    recipe: str | None = None
    overrides: dict[str, Any] = PLAIN
    empty: tuple[int, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012
    fixed: bool = True


CASES = {
    "case_all_have_objects": Case(),
    "case_accumulated": Case(options={"batches__accumulate_steps": 2}),
    "case_the_second_has_none": Case(empty=(2, 3)),
    "case_nobody_has_any": Case(empty=(0, 1, 2, 3)),
    "case_denoising_where_the_second_has_none": Case(overrides={"head.denoising.num_queries": 8}, empty=(2, 3)),
    "case_synchronized_norms": Case(options={"runtime__sync_norms": True}, fixed=False),
    "case_synchronized_norms_of_timm": Case(
        "efficientdet_d0", SMALL_EFFICIENTDET, options={"runtime__sync_norms": True}, fixed=False
    ),
}

LIKE_ONE = [name for name in CASES if "denoising" not in name]

Outcome = tuple[float, dict[str, torch.Tensor], dict[str, torch.Tensor]]


@pytest.fixture
def prepare(
    tiny_recipe: dict[str, Any], frozen_statistics: Callable[[Detector], Detector], batch: Batch
) -> Callable[[str], tuple[Detector, Batch, TrainOptions]]:
    """Makes detector, batch and options of a case, in float64."""

    def make(name: str) -> tuple[Detector, Batch, TrainOptions]:
        case = CASES[name]
        torch.manual_seed(0)
        detector = boxwright.build(case.recipe or tiny_recipe, num_classes=6, overrides=case.overrides)
        shake(detector)
        if case.fixed:
            frozen_statistics(detector)
        # Without denoising these have no gradient, and the processes none to exchange.
        targets = [
            Targets(t.labels[:0], t.boxes[:0], t.size) if i in case.empty else t for i, t in enumerate(batch.targets)
        ]
        changed = batch._replace(images=batch.images.double(), targets=targets)
        options = train_options(batch_size=4, optimizer__max_grad_norm=0.0, **case.options)
        return detector.double().to(memory_format=torch.channels_last), changed, options

    return make


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Any]]:
    """Filled by the first test that needs it: the outcome in each process, by case."""
    return {}


@pytest.fixture
def both(
    outcomes: dict[str, list[Any]],
    tmp_path: Path,
    prepare: Callable[[str], tuple[Detector, Batch, TrainOptions]],
    make_run: Callable[..., Run],
    data: DetectionData,
) -> dict[str, list[Any]]:
    if not outcomes:
        for name in CASES:
            torch.save(prepare(name), tmp_path / f"{name}.pt")
        for head in FAMILIES:
            torch.save(family_run(head, data, tmp_path), tmp_path / f"family_{head}.pt")
        torch.save(replace(make_run(steps=5, schedule__evaluations=1), evaluate=None), tmp_path / "run.pt")
        done = torchrun(str(WORKER), str(tmp_path))
        assert done.returncode == 0, done.stderr
        for name in (*CASES, *(f"family_{head}" for head in FAMILIES), "run"):
            outcomes[name] = [torch.load(tmp_path / f"{name}_rank_{rank}.out", weights_only=False) for rank in range(2)]
    return outcomes


@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_have_the_gradient_of_one(
    both: dict[str, list[Outcome]], name: str, prepare: Callable[[str], tuple[Detector, Batch, TrainOptions]]
) -> None:
    """Also where one has no objects, or none has: losses are divided by objects and matches of all (TRAPS 3 and 7)."""
    detector, batch, options = prepare(name)
    whole = train_step(detector, detector, make_optimizer(detector, options), batch, options, CPU)
    expected = {path: p.grad for path, p in detector.named_parameters() if p.grad is not None}
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for _, gradients, statistics in both[name]:
        assert gradients.keys() == expected.keys()
        for parameter, gradient in expected.items():
            assert float((gradients[parameter] - gradient).abs().max()) <= 1e-9 * scale, parameter
        for buffer, value in detector.named_buffers():
            if buffer in statistics:
                torch.testing.assert_close(statistics[buffer], value, rtol=1e-9, atol=1e-12)
    # Each reports the loss of its own images, so that the mean is the whole.
    assert sum(loss for loss, *_ in both[name]) / 2 == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("head", FAMILIES)
def test_two_processes_have_the_gradient_of_one_for_every_head(
    both: dict[str, list[Step]], head: str, data: DetectionData, tmp_path: Path
) -> None:
    """Through the loader: batches of other sizes in each, with padding, and random choices for each image."""
    run = family_run(head, data, tmp_path)
    expected = make_step(run, first_batch(run, Rank(0, 1, CPU)))
    first, second = both[f"family_{head}"]
    means = {name: (value + second.losses[name]) / 2 for name, value in first.losses.items()}
    for step in (first, second):
        assert_same_step(Step(means, step.gradients), expected)


def test_each_process_trains_on_its_own_images(both: dict[str, list[Any]], make_run: Callable[..., Run]) -> None:
    """Together they train on those of one process, and draw different noise; a callback of the first stops both."""
    (steps, first, weights), (other_steps, second, other_weights) = both["run"]
    assert steps == other_steps == len(first) == len(second) == 2
    run = make_run(steps=5)
    schedule = Schedule(5, run.options, len(run.data.records))
    progress = Progress(step=0, steps=schedule.steps, evaluations=1)
    alone = training_batches(run, Rank(0, 1, CPU), schedule, progress)
    for (ids, seed), (other_ids, other_seed) in zip(first, second, strict=True):
        assert [*ids, *other_ids] == next(alone).image_ids
        assert seed != other_seed
    assert len({seed for _, seed in (*first, *second)}) == 4
    for name, weight in weights.items():
        if "running" not in name:
            assert torch.equal(weight, other_weights[name]), name


def test_denoising_does_not_hang_where_one_process_has_no_objects(both: dict[str, list[Outcome]]) -> None:
    (first_loss, first, _), (second_loss, second, _) = both["case_denoising_where_the_second_has_none"]
    assert math.isfinite(first_loss)
    assert math.isfinite(second_loss)
    assert first.keys() == second.keys()
    assert any(name.startswith("head.denoising_classes") for name in first)
    for name, gradient in first.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.equal(gradient, second[name]), name


def test_other_batch_norms_cannot_be_synchronized() -> None:
    with pytest.raises(ValueError, match="sync_norms knows plain batch norms, and 1 is a BatchNorm1d; give false"):
        sync_norms(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2)), CPU)


def test_a_synchronized_norm_is_a_batch_norm_of_the_same_tensors() -> None:
    block = ConvNorm(3, 4, 1)
    shake(block)
    before, folded = block.state_dict(), deepcopy(block)
    weight = block.norm.weight
    sync_norms(block, CPU)
    assert isinstance(block.norm, SyncedBatchNorm)
    assert block.norm.weight is weight
    assert block.state_dict().keys() == before.keys()
    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(block(images), folded(images))
    block.eval().fold_norms()
    folded.eval().fold_norms()
    assert torch.equal(block(images), folded(images))


def test_a_whole_run_in_two_processes(tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    out = tmp_path / "run"
    train = ["-m", "boxwright", "train", str(recipe_file), "--data", str(drawn), "--out", str(out)]
    done = torchrun(*train, "--train.steps", "4")
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(out / "last.pt")["progress"]["step"] == 4
    steps = [row["step"] for row in read_log(out)]
    assert steps == sorted(steps)
    assert {1, 2, 4} <= set(steps)
    assert done.stderr.count("step 4/4  AP ") == 1
    for words in ("training on ", "done: ", "now: "):
        assert done.stderr.count(words) == 1  # one process speaks


def run_script(lines: str, tmp_path: Path, recipe_file: Path, drawn: Path) -> list[str]:
    """Run Python in two processes, with recipe, data and folder of a run as arguments; return the lines it tells."""
    script = tmp_path / "script.py"
    # In one write each: of `print`, the words of both processes may mix.
    tell = 'def tell(*words):\n    sys.stdout.write(" ".join(map(str, words)) + "\\n")\n'
    script.write_text(f"import sys\n{tell}recipe, data, out = sys.argv[1:]\n{lines}")
    done = torchrun(str(script), str(recipe_file), str(drawn), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_no_process_ends_before_the_first_has_written(tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    """The others look for the best weights at the end, which the first writes after a long evaluation."""
    lines = """
import time
import boxwright
from boxwright.workflows.validation import Validation
measure = Validation.__call__
Validation.__call__ = lambda self, *rest: (time.sleep(3), measure(self, *rest))[1]
result = boxwright.train(recipe, data, out=out, overrides={"train.steps": 2})
tell(len(result.load().categories))
"""
    assert run_script(lines, tmp_path, recipe_file, drawn) == ["6", "6"]


def test_images_are_checked_once_on_a_machine(
    tmp_path: Path, recipe_file: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of its processes decodes all, and the others find what it has remembered."""
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    lines = """
import os
import boxwright
from boxwright.data import image_check
inspect, inspected = image_check.inspect_image, []
image_check.inspect_image = lambda path: (inspected.append(path), inspect(path))[1]
boxwright.train(recipe, data, out=out, overrides={"train.steps": 1})
tell(os.environ["RANK"], len(inspected))
"""
    assert run_script(lines, tmp_path, recipe_file, drawn) == ["0 16", "1 0"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists threads by name")
def test_no_thread_of_the_group_is_left_to_the_end(tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    """One that was left aborted a process now and then, with status 134 after a run that was done."""
    lines = """
import atexit
from pathlib import Path
def has_gloo():
    return any("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
atexit.register(lambda: tell("after", has_gloo()))
import boxwright
boxwright.train(recipe, data, out=out, overrides={"train.steps": 2})
tell("before", has_gloo())
"""
    assert run_script(lines, tmp_path, recipe_file, drawn) == [*["after False"] * 2, *["before True"] * 2]


def test_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    rank = init_distributed("cpu")
    assert (rank.index, rank.world_size, rank.device, rank.is_first) == (0, 1, CPU, True)
