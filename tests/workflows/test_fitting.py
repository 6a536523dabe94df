"""Batches that fit: cut where memory is short, refused where one image is too much, left alone where all is well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxwright.checkpoints import read_checkpoint
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.records import DetectionData
from boxwright.training.run import Run
from boxwright.workflows import fitting as module
from boxwright.workflows import train as train_module
from boxwright.workflows.fit_trial import SAFETY, Stage, Trial, count_fitting
from boxwright.workflows.fitting import KEPT_FACTOR, NO_ROOM, fit_batch, is_parts_typed
from boxwright.workflows.memory_limits import FreeMemory
from boxwright.workflows.saved_memory import count_saved_bytes
from boxwright.workflows.train import train
from boxwright.workflows.worst_step import TrialOutcome, find_worst_step, make_trial, run_in_process
from heard import Heard
from object_records import make_record, of_records

GIB = 2**30
CPU = torch.device("cpu")

STAGES = (Stage(0, 0.0, GIB // 2), Stage(1, 0.5, GIB), Stage(2, 0.75, GIB + GIB // 4))
"""Three quarters of a GiB, and a quarter for each image."""


def few_images() -> DetectionData:
    return of_records([make_record((90, 120), [(3.0, 3.0, 40.0, 30.0)] * i, image_id=i) for i in range(6)])


def make_run(tmp_path: Path, recipe: str = "rtdetr_tiny", **overrides: Any) -> Run:
    options = {"image_size": 64, "train.runtime.device": "cpu", "train.batch_size": 16} | overrides
    resolved, data = resolve(recipe, options).recipe, few_images()
    torch.manual_seed(0)
    return Run(
        detector=build_resolved(resolved, categories=data.categories),
        recipe=resolved,
        data=data,
        augmentation=resolved.augment,
        folder=tmp_path / "run",
    )


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: TrialOutcome, gib: float) -> list[Trial]:
    """Let trials come to an outcome, in so much memory, and collect them."""
    tried: list[Trial] = []

    def run_trial(trial: Trial) -> TrialOutcome:
        tried.append(trial)
        return outcome

    monkeypatch.setattr(module, "run_in_process", run_trial)
    monkeypatch.setattr(module, "_clearly_fits", lambda *_: False)
    monkeypatch.setattr(module, "_cache_bytes", lambda *_: 0)
    monkeypatch.setattr(module, "_capacity", lambda *_: FreeMemory(int(gib * GIB), "container"))
    return tried


def parts_of(run: Run) -> int:
    assert run.detector.recipe is run.recipe
    return run.recipe.train.batches.accumulate_steps


@pytest.mark.parametrize(
    ("batch", "images", "parts"),
    [(16, 16, 1), (16, 15.9, 2), (16, 8, 2), (16, 7, 4), (16, 1, 16), (12, 5, 3), (7, 6, 7), (128, 100, 2)],
)
def test_the_smallest_divisor_of_the_batch_that_has_room(
    batch: int, images: float, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = pretend(monkeypatch, TrialOutcome(STAGES, None, None), (0.75 + images / 4) * SAFETY + 1e-6)
    heard = Heard()
    run = fit_batch(make_run(tmp_path, **{"train.batch_size": batch}), is_fixed=False, observer=heard)
    assert parts_of(run) == parts
    assert not tried[0].with_whole
    assert len(heard.notes) == (parts > 1)
    at_once = batch // parts
    assert all(f"in parts of {at_once} (train.batches.accumulate_steps {parts})" in note for note in heard.notes)


def test_the_note_says_what_is_needed_what_there_is_and_what_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, TrialOutcome(STAGES, None, None), 4)
    heard = Heard()
    fit_batch(make_run(tmp_path), is_fixed=False, observer=heard)
    assert heard.notes == [
        "16 images of a step need 5.22 GiB at once, of 4 GiB (container): they go through the network in parts of 8 "
        "(train.batches.accumulate_steps 2), with the same gradient, but for batch norms, whose statistics are of 8 "
        "images"
    ]
    assert heard.lines == ["measuring the memory of a step, 64 x 64 pixels on cpu"]
    heard = Heard()
    fit_batch(make_run(tmp_path, "detr_r50", **{"backbone.depth": 18}), is_fixed=False, observer=heard)
    assert heard.notes[0].endswith("(train.batches.accumulate_steps 2), with the same gradient")


def test_a_number_of_parts_that_was_typed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome(STAGES, None, None), 2)
    heard = Heard()
    run = make_run(tmp_path, **{"train.batches.accumulate_steps": 2})
    assert fit_batch(run, is_fixed=True, observer=heard) is run
    (note,) = heard.notes
    assert note == (
        "8 images of a step need 3.02 GiB at once, of 2 GiB (container), so that training may end there; "
        "--train.batches.accumulate_steps 4 has room"
    )


@pytest.mark.parametrize(
    ("overrides", "typed"),
    [
        ({"train.batches.accumulate_steps": 2}, True),
        ({"train.batches.accumulate-steps": "2"}, True),
        ({"train": {"batches": {"accumulate_steps": 2}}}, True),
        ({"train.batches": "{accumulate_steps: 2}"}, True),
        ({"train.batches.multi_scale": 0.0, "train.batch_size": 4, "image_size": 64}, False),
        ({}, False),
    ],
)
def test_what_counts_as_typed(overrides: dict[str, Any], typed: bool) -> None:
    assert is_parts_typed(overrides) is typed


def test_one_image_that_does_not_fit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome(STAGES[:2], None, "memory ran out", is_out_of_memory=True), 0.9)
    for is_fixed in (False, True):
        with pytest.raises(
            ValueError, match=r"^one image of 640 x 640 pixels, with up to 5 objects, needs 1 GiB"
        ) as it:
            fit_batch(
                make_run(tmp_path, **{"image_size": 640, "train.batches.multi_scale": 0.0}),
                is_fixed=is_fixed,
                observer=Heard(),
            )
        # A half of a GiB is for 640 pixels, and (0.9 / 1.1 - 0.5) for 510
        assert str(it.value).endswith(
            "this process may have 0.9 GiB (container): give a smaller --image-size 480, or take a smaller recipe"
        )
    pretend(monkeypatch, TrialOutcome(STAGES[:1], None, "memory ran out", is_out_of_memory=True), 0.4)
    with pytest.raises(ValueError, match=r"needs more memory than there is, .* give a smaller --image-size N, or"):
        fit_batch(make_run(tmp_path), is_fixed=False, observer=Heard())


def test_memory_that_runs_out_with_two_images_leaves_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome(STAGES[:2], None, "memory ran out", is_out_of_memory=True), 9)
    assert parts_of(fit_batch(make_run(tmp_path), is_fixed=False, observer=Heard())) == 16


def test_images_that_one_alone_cannot_be_normalized_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (STAGES[0], Stage(2, 0.5, GIB), Stage(4, 0.75, GIB + GIB // 4))
    pretend(monkeypatch, TrialOutcome(stages, None, None), 1.05)
    assert parts_of(fit_batch(make_run(tmp_path), is_fixed=False, observer=Heard())) == 8
    with pytest.raises(ValueError, match=r"^the 2 images that batch norms have to see at once of 64 x 64 pixels"):
        fit_batch(make_run(tmp_path, **{"train.batch_size": 7}), is_fixed=False, observer=Heard())


def test_what_cannot_be_measured_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome((), None, "no module named x"), 1)
    heard, run = Heard(), make_run(tmp_path)
    assert fit_batch(run, is_fixed=False, observer=heard) is run
    assert heard.notes == ["the memory of a step could not be measured: no module named x"]
    monkeypatch.setattr(module, "_capacity", lambda *_: None)
    assert fit_batch(run, is_fixed=False, observer=heard) is run


def test_several_processes_measure_their_part_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = pretend(monkeypatch, TrialOutcome(STAGES, None, None), 2.8 * SAFETY)  # room for 8 images
    rank = module.Rank(0, 2, CPU)
    monkeypatch.setattr(module, "init_distributed", lambda _: rank)
    monkeypatch.setattr(module, "highest", lambda _, *numbers: list(numbers))
    run = make_run(tmp_path, **{"train.batch_size": 32})
    assert parts_of(fit_batch(run, is_fixed=False, observer=Heard())) == 2
    assert tried[0].recipe["train"]["batch_size"] == 16
    # Another machine has less memory, or none to speak of.
    heard = Heard()
    monkeypatch.setattr(module, "highest", lambda *_: [8])
    assert parts_of(fit_batch(run, is_fixed=False, observer=heard)) == 8
    assert "in parts of 2 (train.batches.accumulate_steps 8)" in heard.notes[0]
    monkeypatch.setattr(module, "highest", lambda *_: [NO_ROOM])
    with pytest.raises(ValueError, match="give a smaller --image-size"):
        fit_batch(run, is_fixed=False, observer=Heard())
    # Only the first process of a machine measures; the others hear of it.
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(module, "run_in_process", None)
    monkeypatch.setattr(module, "highest", lambda *_: [4])
    assert parts_of(fit_batch(run, is_fixed=False, observer=Heard())) == 4


def test_processes_share_the_memory_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resident_memory", lambda: GIB)
    memory = FreeMemory(9 * GIB + module.RESERVE_BYTES, "machine")
    assert module._capacity(CPU, memory) == FreeMemory(10 * GIB, "machine")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert module._capacity(CPU, memory) == FreeMemory(4 * GIB, "machine")


def test_room_by_hand() -> None:
    assert count_fitting(STAGES, int(4 * GIB * SAFETY) + 1) == 13
    assert count_fitting(STAGES[:2], int(4 * GIB * SAFETY) + 1) == 7
    too_little = count_fitting(STAGES, GIB // 2)
    assert too_little is not None
    assert too_little < 1
    assert count_fitting(STAGES[:1], GIB) is None


def trial_of(run: Run) -> Trial:
    return make_trial(run.data, run.recipe, find_worst_step(run.data, run.recipe), CPU, None, 60.0)


def test_counting_changes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = {name: value.clone() for name, value in run.detector.state_dict().items()}
    random = torch.get_rng_state()
    run.detector.eval()
    saved = count_saved_bytes(run.detector, trial_of(run), "float32", GIB)
    assert saved is not None
    assert torch.equal(random, torch.get_rng_state())
    assert not run.detector.training
    for name, value in run.detector.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Memory of what is dropped on the way may be used again, or not.
    assert count_saved_bytes(run.detector, trial_of(run), "float32", 2 * saved) == pytest.approx(saved, rel=0.4)
    assert count_saved_bytes(run.detector, trial_of(run), "float32", saved // 2) is None


def test_maps_of_one_cell_are_counted_with_two_images(tmp_path: Path) -> None:
    run = make_run(tmp_path, "efficientdet_d0", image_size=128)
    assert (count_saved_bytes(run.detector, trial_of(run), "float32", GIB) or 0) > 2**20


def test_a_small_batch_is_left_alone_without_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_in_process", None)
    heard, run = Heard(), make_run(tmp_path)
    assert fit_batch(run, is_fixed=False, observer=heard, memory=FreeMemory(4 * GIB, "machine")) is run
    assert heard.notes == []
    assert heard.lines == []


PLAIN = {
    "image_size": 64,
    "input.max_size": 64,
    "backbone.depth": 18,
    "backbone.width": 8,
    "neck.num_layers": 1,
    "neck.dropout": 0.0,
    "head.decoder.num_layers": 2,
    "head.decoder.dropout": 0.0,
    "head.num_queries": 10,
    "train.steps": 2,
    "train.batch_size": 4,
    "train.runtime.device": "cpu",
    "train.runtime.precision": "float32",
}
"""A DETR, whose norms are frozen."""


def weights_after(out: Path, drawn: Path, overrides: dict[str, Any]) -> dict[str, Tensor]:
    train("detr_r50", drawn, out=out, observer=Heard(), overrides=overrides)
    weights = read_checkpoint(out / "last.pt")["model"]
    assert isinstance(weights, dict)
    return weights


def test_the_result_of_a_cut_batch_is_that_of_the_whole(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_after(tmp_path / "whole", drawn, PLAIN)
    pretend(monkeypatch, TrialOutcome(STAGES, None, None), 1.25 * SAFETY + 0.01)
    cut = weights_after(tmp_path / "cut", drawn, PLAIN)
    assert Recipe.from_dict(read_checkpoint(tmp_path / "cut" / "last.pt")["recipe"]).train.batches.accumulate_steps == 2
    typed = weights_after(tmp_path / "typed", drawn, PLAIN | {"train.batches.accumulate_steps": 2})
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=2e-6, msg=name)
        assert torch.equal(cut[name], typed[name]), name


def test_measuring_changes_no_weight_and_a_resumed_run_keeps_its_parts(
    drawn: Path, tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit-equal, with batch norms and denoising noise; the run that is resumed has less memory than it began with."""

    def go_on(out: str, steps: int, *, resume: bool = False) -> tuple[dict[str, Tensor], Heard]:
        heard = Heard()
        overrides = {"train.steps": steps, "train.runtime.device": "cpu"}
        train(recipe_file, drawn, out=tmp_path / out, resume=resume, observer=heard, overrides=overrides)
        weights = read_checkpoint(tmp_path / out / "last.pt")["model"]
        assert isinstance(weights, dict)
        return weights, heard

    measured, _ = go_on("measured", 2)
    with monkeypatch.context() as without:
        without.setattr(train_module, "fit_batch", lambda run, **_: run)
        plain, _ = go_on("plain", 2)
    for name, value in plain.items():
        assert torch.equal(value, measured[name]), name
    pretend(monkeypatch, TrialOutcome(STAGES, None, None), 1.25 * SAFETY + 0.01)
    _, heard = go_on("measured", 2, resume=True)
    (note,) = [note for note in heard.notes if "accumulate_steps" in note]
    assert "training may end there; --train.batches.accumulate_steps 2 has room" in note
    stored = Recipe.from_dict(read_checkpoint(tmp_path / "measured" / "last.pt")["recipe"])
    assert stored.train.batches.accumulate_steps == 1


@pytest.mark.slow
def test_the_batch_of_efficientdet_that_was_killed_is_cut(tmp_path: Path) -> None:
    """Of 128 images at 256 pixels each takes 80 to 100 MiB, which is more than 6 GiB."""
    run = make_run(tmp_path, "efficientdet_d0", **{"image_size": 256, "train.batch_size": 128})
    heard = Heard()
    fitted = fit_batch(run, is_fixed=False, observer=heard, memory=FreeMemory(6 * GIB, "container"))
    assert parts_of(fitted) in (2, 4)
    assert len(heard.notes) == 1
    with pytest.raises(ValueError, match=r"^one image of 256 x 256 pixels"):
        fit_batch(run, is_fixed=False, observer=heard, memory=FreeMemory(GIB // 2, "container"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["efficientdet_d0", "rtdetr_r18", "retinanet_r18_fpn", "mask_rcnn_r18_fpn", "faster_rcnn_r18_fpn"]
)
def test_the_upper_estimate_is_above_what_each_further_image_takes(recipe: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, recipe, **{"image_size": 256, "train.batch_size": 8})
    if run.detector.needs_masks:
        pytest.skip("records without masks")
    trial = trial_of(run)
    saved = count_saved_bytes(run.detector, trial, run.options.runtime.precision, 64 * GIB)
    stages = run_in_process(trial).stages
    first, last = stages[1], stages[-1]
    assert saved is not None
    assert first.peak is not None
    assert last.peak is not None
    assert (last.peak - first.peak) / (last.images - first.images) < KEPT_FACTOR * saved
