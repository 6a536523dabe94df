"""Sharded training: the numbers of training with whole copies, and files that any number of processes goes on from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from partition_cases import FAMILIES, Step, assert_same_step, family_run, first_batch, make_step
from sharded_processes import Ends, Job, Outcome, ScaledNeck, double_batches
from torchrun import torchrun

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.data.records import DetectionData
from boxwright.training import loop
from boxwright.training.distributed import Rank
from boxwright.training.failed_step import FAILED_STEP, read_failed_step, write_failed_step
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.workflows.replay import replay
from boxwright.workflows.validation import Validation

WORKER = Path(__file__).with_name("sharded_processes.py")

KINDS = ("copies", "sharded")

TRAINING: dict[str, Any] = {
    "steps": 3,
    "ema_decay": 0.9,
    "batches__accumulate_steps": 2,
    "optimizer__max_grad_norm": 0.1,
    "schedule__evaluations": 2,
}


RUNS = ("rtdetr", "faster_rcnn", "fcos")
"""Heads of whole runs; of the others there is one step."""

STEPS = ("detr", "dfine+masks", "efficientdet", "mask_rcnn")
"""Heads of one step: plain queries, those with masks and a number of matches of their own, norms in a head, regions."""

OTHERS = [head for head in FAMILIES if head not in (*RUNS, *STEPS)]


def make_run(head: str, data: DetectionData, folder: Path, *, sharded: bool, **options: Any) -> Run:
    """A run in float64 with accumulation, clipping and a moving average; some have a parameter without dimensions."""
    run = family_run(head, data, folder, **TRAINING | options, runtime__sharded=sharded)
    detector = run.detector
    if head == "fcos":
        detector.necks[0] = ScaledNeck(detector.necks[0]).double()
    return run


@pytest.fixture(scope="module")
def folder(data: DetectionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all jobs, done by two processes, and of their runs."""
    folder = tmp_path_factory.mktemp("sharded")
    jobs = {f"step_{head}": Job(family_run(head, data, folder), accumulate=2) for head in STEPS}
    alone = make_run("rtdetr", data, folder / "alone", sharded=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_batches", double_batches())
        with pytest.raises(Interrupted):
            run_training(replace(alone, callbacks=[Ends(Job(alone, interrupt_after=1))]))
    validation = Validation(replace(data, records=data.records[:3]), batch_size=1)
    for kind in KINDS:

        def make(name: str, head: str = "rtdetr", kind: str = kind) -> Run:
            return make_run(head, data, folder / f"{name}_{kind}", sharded=kind == "sharded")

        for head in RUNS:
            jobs[f"run_{head}_{kind}"] = Job(replace(make(f"run_{head}", head), evaluate=validation))
        jobs[f"poisoned_{kind}"] = Job(make("poisoned"), poisoned=1)
        jobs[f"resumed_{kind}"] = Job(make("resumed"), resume=True)
        shutil.copytree(folder / "alone", folder / f"resumed_{kind}")
    return do_jobs(jobs, folder)


@pytest.fixture(scope="module")
def folder_of_others(data: DetectionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, of one step of each of the other heads."""
    folder = tmp_path_factory.mktemp("others")
    return do_jobs({f"step_{head}": Job(family_run(head, data, folder), accumulate=2) for head in OTHERS}, folder)


def do_jobs(jobs: dict[str, Job], folder: Path) -> Path:
    for name, job in jobs.items():
        torch.save(job, folder / f"{name}.job")
    done = torchrun(str(WORKER), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, name: str) -> list[Any]:
    """Read the outcome of a job in each process."""
    return [torch.load(folder / f"{name}_rank_{rank}.out", weights_only=False) for rank in range(2)]


def read_outcomes(folder: Path, name: str) -> list[Outcome]:
    return [Outcome(*values) for values in read(folder, name)]


def assert_close(actual: Any, expected: Any, path: str = "") -> None:
    """The same keys and shapes, and numbers that differ by at most 1e-7 of the largest of their tensor."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), path
        for key in expected:
            assert_close(actual[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, torch.Tensor):
        assert type(actual) is torch.Tensor, path
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), path
        # Moments of a gradient that is 0 but for rounding are noise.
        scale = max(1e-9, float(expected.double().abs().max()))
        assert float((actual.double() - expected.double()).abs().max()) <= 1e-7 * scale, path


def assert_same_files(folder: Path, name: str) -> None:
    """Weights, average and optimizer of a sharded run are those of copies."""
    copies, sharded = (read_checkpoint(folder / f"{name}_{kind}" / LAST) for kind in KINDS)
    assert sharded.keys() == copies.keys()
    assert sharded["progress"]["step"] == copies["progress"]["step"]
    for key in ("model", "ema"):
        assert_close(sharded[key], copies[key], key)
    assert_close(sharded["optimizer"]["state"], copies["optimizer"]["state"], "optimizer")


@pytest.mark.parametrize("head", [*STEPS, *(pytest.param(head, marks=pytest.mark.slow) for head in OTHERS)])
def test_shards_have_the_gradient_of_one_process(
    head: str, data: DetectionData, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("folder" if head in STEPS else "folder_of_others")
    run = family_run(head, data, tmp_path)
    expected = make_step(run, first_batch(run, Rank(0, 1, torch.device("cpu"))))
    first, second = read(folder, f"step_{head}")
    means = {name: (value + second.losses[name]) / 2 for name, value in first.losses.items()}
    for step in (first, second):
        assert_same_step(Step(means, step.gradients), expected)


@pytest.mark.parametrize("head", RUNS)
def test_a_sharded_run_has_the_files_of_copies(head: str, folder: Path) -> None:
    """After several steps, with accumulation, clipping, a moving average and parameters without dimensions."""
    assert_same_files(folder, f"run_{head}")


@pytest.mark.parametrize("head", RUNS)
def test_each_process_holds_half_of_the_optimizer(head: str, folder: Path) -> None:
    sharded = read_outcomes(folder, f"run_{head}_sharded")
    copies = read_outcomes(folder, f"run_{head}_copies")
    total = sharded[0].total
    assert all(one.held == one.total == total for one in copies)
    assert all(one.held == pytest.approx(total / 2, rel=0.05) for one in sharded)


@pytest.mark.parametrize("head", RUNS)
def test_an_evaluation_has_whole_detectors_and_images_in_parts(head: str, folder: Path) -> None:
    """Of three images the first process has two: each detects by itself, with the weights of the average."""
    outcomes = [one for kind in KINDS for one in read_outcomes(folder, f"run_{head}_{kind}")]
    expected = outcomes[0].metrics
    assert len(expected) == 2
    assert expected[0]["total"] != expected[1]["total"]
    for outcome in outcomes[1:]:
        for metrics, values in zip(outcome.metrics, expected, strict=True):
            assert metrics["total"] == pytest.approx(values["total"], rel=1e-6)
            assert metrics["AP50"] == pytest.approx(values["AP50"], abs=1e-3)


def test_one_process_goes_on_with_a_sharded_run(
    data: DetectionData, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "training_batches", double_batches())
    for kind in KINDS:
        shutil.copytree(folder / f"run_rtdetr_{kind}", tmp_path / f"on_{kind}")
        run = make_run("rtdetr", data, tmp_path / f"on_{kind}", sharded=False, steps=5)
        assert run_training(run, resume=True).step == 5
    assert_same_files(tmp_path, "on")


def test_a_sharded_run_goes_on_with_that_of_one_process(folder: Path) -> None:
    assert read_checkpoint(folder / "resumed_sharded" / LAST)["progress"]["step"] == 3
    assert_same_files(folder, "resumed")


def test_a_step_that_is_not_finite_is_left_out(folder: Path, tmp_path: Path) -> None:
    """An image of the second process is bad: both do nothing at this step, and its file repeats it."""
    first, second = read_outcomes(folder, "poisoned_sharded")
    assert (first.failed_steps, second.failed_steps) == (1, 1)
    (line,) = first.lines
    assert line.startswith("step 2 is left out (1 of at most 3)")
    assert "in the images" in line
    assert second.lines == []
    assert_same_files(folder, "poisoned")
    failed = read_failed_step(folder / "poisoned_sharded" / FAILED_STEP)
    images = failed.batch.images.float()
    write_failed_step(tmp_path / FAILED_STEP, replace(failed, batch=failed.batch._replace(images=images)))
    (repeat,) = replay(tmp_path, device="cpu").repeats
    assert repeat.overflow is not None
    assert repeat.overflow.kind == "image"


def test_an_error_of_one_process_says_what_is_saved(data: DetectionData, tmp_path: Path) -> None:
    """The others may be anywhere: nothing is gathered, which would wait for them."""
    validation = Validation(replace(data, records=data.records[:1]))
    run = make_run("fcos", data, tmp_path / "run", sharded=True, steps=4)
    run = replace(run, evaluate=validation)
    torch.save(Job(run, fail_after=3), tmp_path / "fails.job")
    done = torchrun(str(WORKER), str(tmp_path))
    assert done.returncode != 0
    saved = f"step 2 is saved in {run.folder} (a sharded run is not saved after an error)"
    assert f"a fault; {saved}, and --resume goes on from it" in done.stderr
    assert read_checkpoint(run.folder / LAST)["progress"]["step"] == 2


def test_in_one_process_it_has_no_effect(data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "training_batches", double_batches())
    notes: list[str] = []
    run = replace(make_run("rtdetr", data, tmp_path, sharded=True, steps=1), note=notes.append)
    run_training(run)
    assert any(note.startswith("train.runtime.sharded has no effect in one process") for note in notes)
    assert all(type(p) is torch.nn.Parameter for p in run.detector.parameters())


@pytest.mark.slow
def test_a_whole_run_from_the_command_line(tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    """Begun by one process with whole copies, and gone on with by two that share."""
    out = tmp_path / "run"
    train = ["-m", "boxwright", "train", str(recipe_file), "--data", str(drawn), "--out", str(out), "--train.steps"]
    assert torchrun(*train, "2", processes=1).returncode == 0
    done = torchrun(*train, "4", "--resume", "--train.runtime.sharded", "true")
    assert done.returncode == 0, done.stderr
    assert "the run goes on with train.runtime.sharded True, not False" in done.stderr
    assert done.stderr.count("step 4/4  AP ") == 1
    assert {2, 4} <= {row["step"] for row in read_log(out)}
    content = read_checkpoint(out / LAST)
    assert content["progress"]["step"] == 4
    assert content["recipe"]["train"]["runtime"]["sharded"] is True
