"""Runs that go on: what may change, what is said, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import boxwright
from boxwright.checkpoints import BEST, LAST, PREVIOUS, read_checkpoint
from boxwright.compose.train_options import RuntimeOptions, ScheduleOptions, TrainOptions
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.folder_lock import LOCK, hold_folder
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import LOG, read_log
from boxwright.workflows.run_folder import CHANGEABLE, change_options, is_finished, typed_options_of_training
from equality import assert_equal
from heard import Heard

Change = Callable[[Path], None]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of 6 steps."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def go_on(recipe: Any, data: Path, run: Path, resume: Any = True, **overrides: Any) -> Heard:
    heard = Heard()
    typed = {name.replace("__", "."): value for name, value in overrides.items()}
    boxwright.train(recipe, data, out=run, resume=resume, overrides=typed, observer=heard)
    return heard


def progress(run: Path, name: str = LAST) -> dict[str, Any]:
    return read_checkpoint(run / name)["progress"]


class TestLength:
    def test_a_finished_run_says_so(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        heard = go_on(tiny_recipe, drawn, run)
        assert heard.notes == [
            "the run is finished, all of its 6 steps are done: to train on, give a greater length, as --train.steps 12"
        ]
        assert is_finished(run)

    def test_it_goes_on_with_a_greater_length(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        heard = go_on(tiny_recipe, drawn, run, train__steps=8, train__schedule__evaluations=4)
        assert heard.notes[:2] == [
            "the run goes on with train.steps 8, not 6",
            "the run goes on with train.schedule.evaluations 4, not 2",
        ]
        assert [progress(run)[name] for name in ("step", "steps", "evaluations")] == [8, 8, 4]
        assert read_checkpoint(run / LAST)["recipe"]["train"]["steps"] == 8
        assert "steps: 8" in (run / "recipe.yaml").read_text()
        assert [row["step"] for row in read_log(run) if row["kind"] == "eval"] == [3, 6, 8]

    def test_one_length_takes_the_place_of_another(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        go_on(tiny_recipe, drawn, run, train__epochs=3)
        train = read_checkpoint(run / LAST)["recipe"]["train"]
        assert (train["epochs"], train["steps"], progress(run)["step"]) == (3, None, 8)

    def test_a_smaller_length_is_refused(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        with pytest.raises(ValueError, match="the run has done 6 steps already, and is to have 5"):
            go_on(tiny_recipe, drawn, run, train__steps=5)


def test_what_is_typed_is_taken_over_where_it_may_change() -> None:
    """In every spelling of an override; anything else stays as it was."""
    asked = TrainOptions(
        budget="9m", lr=9.0, schedule=ScheduleOptions(evaluations=9), runtime=RuntimeOptions(device="cuda:1", workers=9)
    )
    own = TrainOptions(epochs=5, steps=7, runtime=RuntimeOptions(precision="bfloat16", seed=4))
    overrides = {
        "train": {"budget": "9m", "schedule": {"evaluations": 9}},
        "train.runtime.device": "cuda:1",
        "train.lr": 9.0,
        "train.runtime": {"workers": 9},
        "head.name": "detr",
    }
    train, changed = change_options(own, asked, typed_options_of_training(overrides))
    assert set(changed) == {"budget", "schedule.evaluations", "runtime.device", "runtime.workers"} <= set(CHANGEABLE)
    runtime = replace(own.runtime, device="cuda:1", workers=9)
    assert train == replace(own, steps=None, budget="9m", schedule=asked.schedule, runtime=runtime)
    assert change_options(own, asked, set()) == (own, [])
    assert change_options(own, own, {"steps", "runtime.device"}) == (own, [])


class InterruptAfterThree(Callback):
    def on_step(self, event: StepEvent) -> None:
        if event.step == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("begins_with_it", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_activation_checkpointing_may_be_switched_and_changes_nothing_else(
    tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path, begins_with_it: bool
) -> None:
    """With dropout, whose draws are repeated."""
    name = "train.batches.activation_checkpointing"
    unbroken, switched = tmp_path / "unbroken", tmp_path / "switched"
    dropout = {"head.decoder.dropout": 0.2}
    boxwright.train(tiny_recipe, drawn, out=unbroken, overrides=dropout)
    options = {**dropout, name: begins_with_it}
    with pytest.raises(Interrupted):
        boxwright.train(tiny_recipe, drawn, out=switched, overrides=options, callbacks=[InterruptAfterThree()])
    assert progress(switched)["step"] == 3
    heard = Heard()
    boxwright.train(tiny_recipe, drawn, out=switched, resume=True, overrides={name: not begins_with_it}, observer=heard)
    assert f"the run goes on with {name} {not begins_with_it}, not {begins_with_it}" in heard.notes
    for file in (LAST, BEST):
        first, second = read_checkpoint(unbroken / file), read_checkpoint(switched / file)
        assert second["recipe"]["train"]["batches"].pop("activation_checkpointing") is not begins_with_it
        first["recipe"]["train"]["batches"].pop("activation_checkpointing")
        assert_equal(first, second)


class TestDamage:
    def test_the_one_before_is_taken_and_said(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        before = read_checkpoint(run / LAST)["model"]
        assert progress(run, PREVIOUS)["step"] == 3
        (run / LAST).write_bytes((run / LAST).read_bytes()[:-100])
        heard = go_on(tiny_recipe, drawn, run)
        assert f"{run / LAST} is damaged: the checkpoint before it is taken, {run / PREVIOUS}" in heard.notes
        assert all((before[name] == tensor).all() for name, tensor in read_checkpoint(run / LAST)["model"].items())

    @pytest.mark.parametrize("is_gone", [True, False])
    def test_readers_of_the_folder_take_it_too(self, run: Path, is_gone: bool) -> None:
        (run / BEST).unlink()
        (run / LAST).unlink() if is_gone else (run / LAST).write_bytes(b"PK\x03\x04 and nothing")
        assert not is_finished(run)
        assert len(boxwright.load(run).categories) == 6
        assert boxwright.info(run).model is not None

    def test_a_damaged_row_of_the_log_is_said(self, tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
        lines = (run / LOG).read_text().splitlines()
        (run / LOG).write_text("\n".join([lines[0][:20], *lines[1:]]) + "\n")
        heard = go_on(tiny_recipe, drawn, run)
        assert f"{run / LOG}: line 1 of {len(lines)} cannot be read and is left out" in heard.notes
        assert read_log(run) == [json.loads(line) for line in lines[1:]]


class TestAuto:
    def test_it_begins_and_goes_on(self, tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        go_on(tiny_recipe, drawn, run, "auto", train__steps=1)
        assert progress(run)["step"] == 1
        go_on(tiny_recipe, drawn, run, "auto", train__steps=2)
        assert [row["step"] for row in read_log(run) if row["kind"] == "train"] == [1, 2]

    def test_other_files_are_not_overwritten(self, tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match="exists already and is not overwritten"):
            go_on(tiny_recipe, drawn, tmp_path, "auto")

    @pytest.mark.usefixtures("unchecked")
    def test_no_other_word(self, tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="resume is True, False or 'auto', not 'yes'"):
            go_on(tiny_recipe, drawn, tmp_path, "yes")


def test_a_folder_that_is_held_is_refused(tiny_recipe: dict[str, Any], drawn: Path, run: Path) -> None:
    with hold_folder(run), pytest.raises(ValueError, match=r"works here, since .*: wait for it, end it"):
        go_on(tiny_recipe, drawn, run)
    go_on(tiny_recipe, drawn, run)
    assert not (run / LOCK).exists()


def edit(data: Path, change: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    file = data / "annotations" / f"{split}.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def reverse_images(data: Path) -> None:
    edit(data, lambda document: document["images"].reverse())


def relabel(data: Path, split: str = "train") -> None:
    def change(document: dict[str, Any]) -> None:
        first = document["annotations"][0]
        ids = [category["id"] for category in document["categories"]]
        first["category_id"] = next(number for number in ids if number != first["category_id"])

    edit(data, change, split)


def swap_annotations(data: Path) -> None:
    """The objects of two images are exchanged."""

    def change(document: dict[str, Any]) -> None:
        first, other = list({a["image_id"]: a for a in document["annotations"]}.values())[:2]
        first["image_id"], other["image_id"] = other["image_id"], first["image_id"]

    edit(data, change)


def drop_image(data: Path, split: str = "train") -> None:
    def change(document: dict[str, Any]) -> None:
        gone = document["images"].pop()["id"]
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] != gone]

    edit(data, change, split)


def replace_image(data: Path, split: str = "train") -> None:
    """Other pixels in a file of the same name and size."""
    name = json.loads((data / "annotations" / f"{split}.json").read_text())["images"][0]["file_name"]
    (path,) = data.rglob(name)
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (9, 99, 199)).save(path)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (drop_image, "on 10 images of set, and other has 9"),
        (relabel, "on set, and the annotations of other are others"),
        (swap_annotations, "on set, and the annotations of other are others"),
        (replace_image, "on set, and image files of other are others, with the same names"),
        (reverse_images, "on set, and the images of other are in another order"),
    ],
)
def test_other_data_is_refused_with_the_difference(
    tiny_recipe: dict[str, Any], drawn: Path, run: Path, tmp_path: Path, change: Change, difference: str
) -> None:
    other = Path(shutil.copytree(drawn, tmp_path / "other"))
    go_on(tiny_recipe, other, run)
    change(other)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="fine-tuning: leave --resume out and give --weights") as caught:
        go_on(tiny_recipe, other, run)
    assert f"the run was trained {difference}; to go on" in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (drop_image, "on 6 images of set, and other has 5"),
        (relabel, "on set, and the annotations of other are others"),
        (replace_image, "on set, and image files of other are others, with the same names"),
    ],
)
def test_another_validation_split_is_said_once(
    tiny_recipe: dict[str, Any],
    drawn: Path,
    run: Path,
    tmp_path: Path,
    change: Callable[[Path, str], None],
    difference: str,
) -> None:
    """Training is the same; but the best value so far is of other images or objects."""
    other = Path(shutil.copytree(drawn, tmp_path / "other"))
    line = f"{run}: the run was measured {difference} (split val); its best weights stay the best until others have a "
    assert not [note for note in go_on(tiny_recipe, other, run).notes if "measured" in note]
    change(other, "val")
    assert [note for note in go_on(tiny_recipe, other, run, train__steps=7).notes if note.startswith(line)]
    assert not [note for note in go_on(tiny_recipe, other, run, train__steps=8).notes if "measured" in note]


def test_a_part_of_the_validation_split_is_known_too(tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path) -> None:
    options = {"train__steps": 2, "train__schedule__evaluations": 1, "train__schedule__evaluation_images": 3}
    other, run = Path(shutil.copytree(drawn, tmp_path / "other")), tmp_path / "run"
    go_on(tiny_recipe, other, run, "auto", **options)
    replace_image(other, "val")
    heard = go_on(tiny_recipe, other, run, **options | {"train__steps": 3})
    assert [note for note in heard.notes if "image files of other are others" in note]
