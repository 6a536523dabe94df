"""``boxwright.train``: a folder or samples of one's own, callbacks, and the checks and messages of the command."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import boxwright
from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.training.callbacks import Callback, CheckpointEvent, EvaluationEvent, StepEvent
from boxwright.training.log import read_log
from boxwright_runtime.images import read_image
from equality import timeless
from heard import Heard
from sparse_ids import NAMES

Recipe = dict[str, Any]


def own_samples(drawn: Path, split: str) -> boxwright.ImageDataset:
    """The drawn data set as arrays, boxes and labels."""
    document = json.loads((drawn / "annotations" / f"{split}.json").read_text())
    categories = sorted(document["categories"], key=lambda category: category["id"])
    label_of = {category["id"]: i for i, category in enumerate(categories)}
    samples = []
    for image in document["images"]:
        own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [label_of[a["category_id"]] for a in own]
        pixels = read_image(drawn / "images" / image["file_name"])
        samples.append(boxwright.LabeledImage(image=pixels, boxes=boxes, labels=labels))
    return boxwright.ImageDataset(samples, [category["name"] for category in categories])


def test_a_folder(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    heard = Heard()
    result = boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", observer=heard, overrides={"train.steps": 2})
    assert result.folder == tmp_path / "run"
    assert (result.steps, result.measure, result.is_measured) == (2, "AP", True)
    assert result.best is not None
    assert result.seconds > 0
    assert result.checkpoint == tmp_path / "run" / "best.safetensors"
    assert [category.name for category in result.load().categories] == list(NAMES.values())
    assert len(heard.lines) == 1
    assert heard.lines[0].startswith("training on 10 images of 6 classes (at most ")


def test_the_command_trains_the_same(tiny_recipe: Recipe, recipe_file: Path, drawn: Path, tmp_path: Path) -> None:
    boxwright.train(tiny_recipe, drawn, out=tmp_path / "a", overrides={"train.steps": 2})
    command = ["train", str(recipe_file), "--data", str(drawn), "--out", str(tmp_path / "b"), "--train.steps", "2"]
    assert main(command) == 0
    first, second = (timeless(read_log(tmp_path / name)) for name in "ab")
    assert first == second


def test_samples_of_ones_own_train_as_the_same_data_in_a_folder(
    tiny_recipe: Recipe, drawn: Path, tmp_path: Path
) -> None:
    own = {split: own_samples(drawn, split) for split in ("train", "val")}
    boxwright.train(tiny_recipe, own, out=tmp_path / "own", overrides={"train.steps": 2})
    boxwright.train(tiny_recipe, drawn, out=tmp_path / "folder", overrides={"train.steps": 2})
    first, second = (
        [row for row in timeless(read_log(tmp_path / name)) if row["kind"] == "train"] for name in ("own", "folder")
    )
    assert first == second


def test_samples_without_a_validation_split(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    heard = Heard()
    data = own_samples(drawn, "train")
    result = boxwright.train(tiny_recipe, data, out=tmp_path / "run", observer=heard, overrides={"train.steps": 1})
    assert heard.notes == ["there is no split val, so that nothing is measured during training"]
    assert (result.best, result.is_measured) == (None, False)
    assert result.checkpoint.is_file()


def test_explicit_files(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    files = boxwright.DataFiles(
        annotations={split: drawn / "annotations" / f"{split}.json" for split in ("train", "val")},
        images=dict.fromkeys(("train", "val"), drawn / "images"),
    )
    result = boxwright.train(tiny_recipe, files, out=tmp_path / "run", overrides={"train.steps": 1})
    assert result.is_measured


def test_callbacks_hear_of_everything_and_may_stop(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    events: list[object] = []

    class Collect(Callback):
        def on_step(self, event: StepEvent) -> None:
            events.append(event.step)

        def on_evaluation(self, event: EvaluationEvent) -> None:
            events.append((event.measure, event.value))
            event.stop("enough")

        def on_checkpoint(self, event: CheckpointEvent) -> None:
            events.append(event.path.name)

    result = boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", callbacks=[Collect()])
    assert events[:3] == [1, 2, 3]
    assert events[3] == ("AP", result.best)
    assert {"last.pt", "best.safetensors"} <= set(events)
    assert (result.steps, 4 in events) == (3, False)


def test_early_stopping(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    options = {"train.steps": 6, "train.schedule.evaluations": 6, "train.lr": 1e-12}
    result = boxwright.train(
        tiny_recipe, drawn, out=tmp_path / "run", callbacks=[boxwright.EarlyStopping(patience=2)], overrides=options
    )
    assert result.steps == 3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("callback", [print, boxwright.EarlyStopping])
def test_what_is_no_callback_is_refused_before_anything_is_written(
    tiny_recipe: Recipe, drawn: Path, tmp_path: Path, callback: Any
) -> None:
    with pytest.raises(ValueError, match=r"is no callback: give objects of classes derived from boxwright.Callback"):
        boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", callbacks=[callback])
    assert not (tmp_path / "run").exists()


def test_transforms_of_ones_own(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    """Before and after our own; those of torchvision are taken as they are."""
    images: list[tuple[int, ...]] = []
    inputs: list[tuple[int, ...]] = []

    def see_image(sample: TrainingSample, _: TransformContext) -> TrainingSample:
        images.append(sample.image.shape)
        return sample

    def see_input(sample: TrainingSample, _: TransformContext) -> TrainingSample:
        inputs.append(sample.image.shape)
        return sample

    options: dict[str, Any] = {"train.steps": 1, "train.batches.multi_scale": 0.0}
    boxwright.train(
        tiny_recipe,
        drawn,
        out=tmp_path / "run",
        transforms=[v2.RandomVerticalFlip(1.0), see_image],
        input_transforms=[see_input],
        overrides=options,
    )
    assert len(images) == len(inputs) == 4
    sizes = {(record.height, record.width, 3) for record in open_data(drawn, "train").records}
    assert set(images) <= sizes
    assert (64, 64, 3) not in sizes
    assert set(inputs) == {(64, 64, 3)}
    with pytest.raises(ValueError, match="is no transform: give a function of a sample and a context"):
        boxwright.train(tiny_recipe, drawn, out=tmp_path / "none", transforms=["flip"])


def test_notes_are_warnings(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="neck: hybrid_encoder was replaced by identity; its options are dropped"):
        boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", overrides={"neck": "identity", "train.steps": 1})


def test_a_length_replaces_another(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    tiny_recipe["train"]["steps"] = 50
    result = boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", overrides={"train": {"epochs": 1}})
    assert result.steps == 3


def test_a_run_goes_on(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    class StopAt2(Callback):
        def on_step(self, event: StepEvent) -> None:
            if event.step == 2:
                event.stop()

    out = tmp_path / "run"
    assert boxwright.train(tiny_recipe, drawn, out=out, callbacks=[StopAt2()]).steps == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert boxwright.train(tiny_recipe, drawn, out=out, resume=True).steps == 6


def test_training_on_a_set_does_not_touch_the_random_state_of_the_caller_twice(
    tiny_recipe: Recipe, drawn: Path, tmp_path: Path
) -> None:
    """Two runs of one process are the same run."""
    logs = []
    for name in "ab":
        torch.rand(3)
        boxwright.train(tiny_recipe, drawn, out=tmp_path / name, overrides={"train.steps": 1})
        logs.append(timeless(read_log(tmp_path / name)))
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("change", "typed", "message"),
    [
        ({"overrides": {"neck.num_layer": 3}}, ["--neck.num_layer", "3"], "did you mean"),
        ({"data": "nowhere"}, ["--data", "nowhere"], "data folder nowhere does not exist"),
        ({"resume": True}, ["--resume"], "no run to resume here"),
        ({"backbone_weights": "nowhere.pt"}, ["--backbone.weights", "nowhere.pt"], "nowhere.pt: no such file"),
    ],
)
def test_mistakes_are_those_of_the_command(
    recipe_file: Path,
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    typed: list[str],
    message: str,
) -> None:
    arguments: dict[str, Any] = {"data": drawn, "out": tmp_path / "run"} | change
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        boxwright.train(recipe_file, **arguments)
    data = [] if "data" in change else ["--data", str(drawn)]
    assert main(["train", str(recipe_file), *data, "--out", str(tmp_path / "run"), *typed]) == 2
    assert capsys.readouterr().err == f"boxwright: error: {error.value}\n"
    assert not (tmp_path / "run").exists()
