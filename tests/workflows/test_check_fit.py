"""The worst training step: its size, its verdict, and trials that come to a bad end."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.workflows import check_fit as module
from boxwright.workflows import fit_trial
from boxwright.workflows.check_fit import DOES_NOT_FIT, check_fit
from boxwright.workflows.fit_trial import SAFETY, Stage, Trial, extrapolate, run_from_input, run_trial, write_trial
from boxwright.workflows.memory_limits import FreeMemory
from boxwright.workflows.worst_step import TrialOutcome, find_worst_step, make_trial, run_in_process
from heard import Heard
from object_records import make_record, of_records

GIB = 2**30
CPU = torch.device("cpu")


def small(**overrides: Any) -> Recipe:
    options: dict[str, Any] = {
        "image_size": 64,
        "backbone.width": 8,
        "train.batch_size": 4,
        "head.denoising.num_queries": 0,
        "train.runtime.device": "cpu",
    }
    return resolve("rtdetr_tiny", options | overrides).recipe


def crowded(*counts: int, size: tuple[int, int] = (90, 120)) -> DetectionData:
    boxes = [(3.0, 3.0, 40.0, 30.0)] * max(counts)
    return of_records([make_record(size, boxes[:count], image_id=i) for i, count in enumerate(counts)])


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: TrialOutcome) -> None:
    monkeypatch.setattr(module, "run_in_process", lambda _: outcome)


STAGES = (Stage(0, 0.0, GIB // 2), Stage(1, 0.5, GIB), Stage(2, 0.75, GIB + GIB // 4))
"""A quarter of a GiB and of a second for each image."""


def test_extrapolation_by_hand() -> None:
    assert extrapolate(STAGES, 16, memory=True) == GIB * (1 + 15 / 4)
    assert extrapolate(STAGES, 16, memory=False) == 0.5 + 15 / 4
    assert extrapolate(STAGES[:2], 3, memory=True) == 2 * GIB
    assert extrapolate(STAGES[:1], 3, memory=True) is None
    assert extrapolate((*STAGES, Stage(4, 9.0, 9 * GIB, True)), 4, memory=True) == 1.75 * GIB
    assert extrapolate([one._replace(peak=None) for one in STAGES], 4, memory=True) is None


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"train.batches.multi_scale": 0.25, "image_size": 256}, (320, 320)),
        ({"train.batches.multi_scale": 0.0}, (64, 64)),
        ({"input.resize": "letterbox", "train.batches.multi_scale": 0.5}, (96, 96)),
    ],
)
def test_the_largest_scale_is_tried_with_the_fullest_images(options: dict[str, Any], size: tuple[int, int]) -> None:
    worst = find_worst_step(crowded(2, 7, 1, 9, 3, 0), small(**options))
    assert worst.input_size == size
    assert [len(record.labels) for record in worst.records] == [9, 7, 3, 2]


def test_images_of_two_shapes_are_padded_to_both() -> None:
    records = [make_record((100, 200), [], image_id=i) for i in range(6)]
    records += [make_record((200, 100), [], image_id=6 + i) for i in range(6)]
    options = {"input.resize": "shortest_side", "input.max_size": 128, "augment.zoom_out": 0.0, "augment.iou_crop": 0.0}
    assert find_worst_step(of_records(records), small(**options)).input_size == (128, 128)
    wide = find_worst_step(of_records(records[:6]), small(**options))
    assert wide.input_size == (64, 128)
    # A mosaic of wide and of tall images is square.
    tiled = find_worst_step(of_records(records), small(**options, **{"augment.mosaic": 1.0}))
    assert tiled.input_size == (64, 64)
    assert find_worst_step(of_records(records[:6]), small(**options, **{"augment.mosaic": 1.0})).input_size == (64, 128)


def test_a_recipe_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Stage(4, 2.0, 2 * GIB, True)
    pretend(monkeypatch, TrialOutcome((*STAGES, whole, whole._replace(seconds=1.0)), None, None))
    data, heard = crowded(*[5] * 40), Heard()
    check = check_fit(
        {"val": crowded(1), "train": data}, small(), memory=FreeMemory(8 * GIB, "container"), observer=heard
    )
    cache = 40 * 3 * 90 * 120
    assert (check.peak, check.fits, check.is_measured, check.step_seconds) == (2 * GIB + cache, True, True, 1.0)
    assert check.findings == ()
    assert check.advice == ()
    # 800 steps of 4 images are 80 epochs of 10 steps
    assert (check.run.epochs, check.run.epoch, check.run.total) == (80, pytest.approx(10.0), pytest.approx(800.0))
    lines = check.lines()
    assert lines[0] == "worst step: 4 images of 64 x 64 pixels, up to 5 objects in one, on cpu"
    assert lines[1] == "memory: 2.00 GiB of 8.00 GiB (container), measured: fits"
    assert "10 s for an epoch of 40 images, reading of images not counted, 13.3 min for the recipe's 80" in lines[2]
    assert len(heard.lines) == 1


def test_one_that_does_not_is_told_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.75 GiB and 0.25 for each image: of 4.41 GiB 4.01 are left, and 13 images have room, not 16."""
    pretend(monkeypatch, TrialOutcome(STAGES, None, None))
    recipe = small(**{"train.batch_size": 16, "image_size": 320})
    data = crowded(5, size=(1, 1))
    check = check_fit(data, recipe, memory=FreeMemory(int(4.41 * GIB), "machine"))
    assert check.fits is False
    assert not check.is_measured
    assert check.peak == pytest.approx(4.75 * SAFETY * GIB, abs=10)
    assert check.advice[0].startswith("--train.batches.accumulate_steps 2: 8 images at once and the same gradient")
    assert check.advice[1] == "--train.batch_size 13: fewer images for a step"
    assert check.advice[2] == "--image-size 288"  # 320 * sqrt(3.25 / 4) = 288.4
    (finding,) = check.findings
    assert finding.kind is DOES_NOT_FIT
    assert finding.kind.severity == "error"
    assert "does not fit" in check.lines()[1]


def test_smaller_scales_alone_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome(STAGES, None, None))
    recipe = small(**{"train.batch_size": 16, "image_size": 256, "train.batches.multi_scale": 0.25})
    check = check_fit(crowded(5, size=(1, 1)), recipe, memory=FreeMemory(int(4.41 * GIB), "machine"))
    assert "--train.batches.multi_scale 0: every input of 256 pixels, not up to 320" in check.advice


def test_memory_that_ran_out_does_not_fit_whatever_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for stages in (STAGES, STAGES[:1], ()):
        pretend(monkeypatch, TrialOutcome(stages, None, "memory ran out", True))
        check = check_fit(crowded(5), small(), memory=FreeMemory(4 * GIB, "machine"))
        assert check.fits is False
        assert check.advice
        assert check.failure is None
        assert check.lines()


def test_a_failure_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, TrialOutcome((), None, "no module named x"))
    check = check_fit(crowded(5), small(), memory=FreeMemory(4 * GIB, "machine"))
    assert (check.fits, check.findings) == (None, ())
    assert check.lines()[1] == "no step could be made: no module named x"


def test_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_in_process", None)
    with pytest.raises(ValueError, match=r"train\.json: there are no images to train on"):
        check_fit(of_records([]), small())


def trial(recipe: Recipe, memory: int | None = None) -> Trial:
    data = crowded(3, 0, 9, 1)
    return make_trial(data, recipe, find_worst_step(data, recipe), CPU, memory, 60.0)


@pytest.mark.parametrize(
    ("options", "others"),
    [({"mixup": 0.5}, 1), ({"mosaic": 0.5}, 3), ({"mosaic": 0.1, "copy_blend": 0.1}, 7)],
)
def test_samples_of_several_images_have_their_objects(options: dict[str, float], others: int) -> None:
    """Those of their own image, and of as many others as a sample consists of."""
    recipe, data = small(**{f"augment.{name}": value for name, value in options.items()}), crowded(9, 3, 1, 0)
    made = make_trial(data, recipe, find_worst_step(data, recipe), CPU, None, 60.0)
    assert [len(labels) for labels in made.labels] == [len(boxes) for boxes in made.boxes]
    for labels, own in zip(made.labels, (9, 3, 1, 0), strict=True):
        assert own <= len(labels) <= own + 9 * others
    assert sum(map(len, made.labels)) > 13 * (1 + others / 3)


def test_targets_are_in_pixels_of_the_network_input() -> None:
    made = trial(small())
    assert made.input_size == (64, 64)
    assert [len(labels) for labels in made.labels] == [9, 3, 1, 0]
    assert made.boxes[0][0] == pytest.approx([3 * 64 / 120, 3 * 64 / 90, 43 * 64 / 120, 33 * 64 / 90])


@pytest.mark.parametrize("recipe", [small(), small(**{"train.batches.accumulate_steps": 2, "train.batch_size": 6})])
def test_stages_of_a_real_trial(recipe: Recipe) -> None:
    told: list[dict[str, Any]] = []
    run_trial(replace(trial(recipe), threads=1), told.append)
    images = [(one["images"], one["is_whole"]) for one in told if one["kind"] == "stage"]
    together = 4 if recipe.train.batch_size == 4 else 3
    assert images == [(0, False), (1, False), (2, False), (together, True), (together, True)]
    assert all(one["peak"] > 0 for one in told if one["kind"] == "stage")


def test_the_whole_batch_is_not_tried_where_memory_would_not_last() -> None:
    told: list[dict[str, Any]] = []
    steps = replace(trial(small()), threads=1, seconds=1e-9)
    run_trial(steps, told.append)
    assert [one["images"] for one in told if one["kind"] == "stage"] == [0, 1]


@pytest.mark.slow
def test_a_trial_in_its_own_process_ends_at_its_limit() -> None:
    outcome = run_in_process(trial(small(), memory=GIB // 4))
    assert outcome.is_out_of_memory
    assert not any(stage.is_whole for stage in outcome.stages)


def test_a_trial_that_cannot_be_built_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = replace(trial(small()), recipe={**small().to_dict(), "head": {"name": "nothing"}})
    monkeypatch.setattr(sys, "stdin", io.StringIO(write_trial(faulty)))
    run_from_input()
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "error"
    assert "nothing" in told["message"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(write_trial(trial(small()))))
    monkeypatch.setattr(fit_trial, "run_trial", Mock(side_effect=error))
    run_from_input()
    assert json.loads(capsys.readouterr().out) == {"kind": "out_of_memory"}


def test_drawn_images_are_read_and_the_step_is_measured(tmp_path: Path) -> None:
    draw_data_set(tmp_path, train=5, val=1, image_size=64, seed=1)
    data = open_data(tmp_path, "train")
    check = check_fit(data, small(), limit_seconds=100.0)
    assert check.fits is True
    assert check.is_measured
    assert check.peak is not None
    assert 100 * 2**20 < check.peak < 4 * GIB
    assert check.step_seconds is not None
    assert check.step_seconds > 0
    assert check.run.reading is not None
    assert np.isfinite(check.run.reading)
