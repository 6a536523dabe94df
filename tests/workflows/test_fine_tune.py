"""Fine-tuning: a run that begins with a whole detector, on other classes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import boxwright
from boxwright.cli.main import main
from boxwright.passport import Origin, Passport
from boxwright.weights.model import ModelWeights
from boxwright.workflows.beginning import Beginning, resolve_beginning
from heard import Heard

Recipe = dict[str, Any]
NOTHING_LEARNED: dict[str, Any] = {"train.steps": 1, "train.schedule.evaluations": 1, "train.ema_decay": 0.0}


@pytest.fixture(scope="session")
def first_run(trained: Path) -> Path:
    """The folder of a finished run on six drawn classes."""
    return trained


def renamed(drawn: Path, out: Path, names: dict[str, str]) -> Path:
    """The drawn data set with other names of classes."""
    for split in ("train", "val"):
        document = json.loads((drawn / "annotations" / f"{split}.json").read_text())
        for category in document["categories"]:
            category["name"] = names.get(category["name"], category["name"])
        (out / "annotations").mkdir(parents=True, exist_ok=True)
        (out / "annotations" / f"{split}.json").write_text(json.dumps(document))
    (out / "images").symlink_to(drawn / "images")
    return out


def test_a_run_that_has_learned_nothing_yet_has_the_weights_of_its_source(
    tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    source = boxwright.load(first_run)
    heard = Heard()
    options = {**NOTHING_LEARNED, "train.lr": 1e-12, "train.freeze": "backbone,neck"}
    result = boxwright.train(
        tiny_recipe, drawn, out=tmp_path / "run", weights=first_run, observer=heard, overrides=options
    )
    ours, theirs = result.load().state_dict(), source.state_dict()
    # The head is not frozen: its norms have seen images by now.
    norms = ("running_mean", "running_var", "num_batches_tracked")
    for name, tensor in theirs.items():
        if not (name.startswith("head.") and name.endswith(norms)):
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-7, msg=name)
    report = json.loads((tmp_path / "run" / "initial_weights.json").read_text())
    assert [*report["new"], *report["skipped"], *report["new_classes"]] == []
    assert len(report["kept_classes"]) == 6
    total = len(report["loaded"]) + len(report["class_layers"])
    assert any(line.endswith(f": {total} of {total} tensors taken") for line in heard.lines)


def test_classes_of_the_same_name_keep_their_rows(
    tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    names = [category.name for category in boxwright.load(first_run).categories]
    data = renamed(drawn, tmp_path / "data", {names[0]: "something else"})
    heard = Heard()
    options = {**NOTHING_LEARNED, "train.lr": 1e-12}
    result = boxwright.train(
        tiny_recipe, data, out=tmp_path / "run", weights=first_run, observer=heard, overrides=options
    )
    source, tuned = boxwright.load(first_run), result.load()
    assert isinstance(source.head, torch.nn.Module)
    own, theirs = tuned.state_dict()["head.classes.0.weight"], source.state_dict()["head.classes.0.weight"]
    order = [names.index(category.name) if category.name in names else None for category in tuned.categories]
    for label, there in enumerate(order):
        if there is not None:
            torch.testing.assert_close(own[label], theirs[there], rtol=0, atol=1e-6)
    assert order.count(None) == 1
    assert any(line.startswith("  5 of 6 classes keep their rows") for line in heard.lines)
    assert "  1 are new: something else" in heard.lines


def test_options_of_parts_and_preprocessing_come_along_unless_typed(
    tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    recipe = {**tiny_recipe, "head": {"name": "rtdetr", "num_queries": 7}, "input": {"image_size": 96}}
    heard = Heard()
    result = boxwright.train(
        recipe, drawn, out=tmp_path / "a", weights=first_run, observer=heard, overrides=NOTHING_LEARNED
    )
    stored = yaml.safe_load((result.folder / "recipe.yaml").read_text())
    assert (stored["head"]["num_queries"], stored["input"]["image_size"]) == (20, 64)
    assert not [note for note in heard.notes if "preprocessing" in note]
    typed = {"input.mean": "0.5,0.5,0.5", "head.num_queries": 9}
    result = boxwright.train(
        recipe, drawn, out=tmp_path / "b", weights=first_run, observer=heard, overrides={**NOTHING_LEARNED, **typed}
    )
    stored = yaml.safe_load((result.folder / "recipe.yaml").read_text())
    assert (stored["head"]["num_queries"], stored["input"]["mean"]) == (9, [0.5, 0.5, 0.5])
    (note,) = [note for note in heard.notes if "preprocessing" in note]
    assert "mean" in note


@pytest.mark.parametrize(
    ("typed", "rates"),
    [
        ({}, (0.00025, 2.5e-5)),
        ({"train.lr": 0.002}, (0.002, 2.5e-5)),
        ({"train": {"backbone_lr": 1e-3}}, (0.00025, 1e-3)),
    ],
    ids=["none", "lr", "backbone_lr"],
)
def test_rates_are_those_of_fine_tuning_unless_typed(
    typed: dict[str, Any], rates: tuple[float, float], tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    train = {**tiny_recipe["train"], "backbone_lr": 1e-4, "optimizer": {"fine_tune_factor": 0.25}}
    recipe = {**tiny_recipe, "train": train}
    result = boxwright.train(
        recipe, drawn, out=tmp_path / "a", weights=first_run, overrides={**NOTHING_LEARNED, **typed}
    )
    stored = yaml.safe_load((result.folder / "recipe.yaml").read_text())["train"]
    assert (stored["lr"], stored["backbone_lr"]) == pytest.approx(rates)
    assert stored["optimizer"]["fine_tune_factor"] == 1.0


def test_frozen_parts_stay_as_they_are(tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path) -> None:
    options = {"train.steps": 2, "train.ema_decay": 0.0, "train.freeze": "backbone,neck"}
    command = ["train", str(recipe_path(tiny_recipe, tmp_path)), "--data", str(drawn), "--out", str(tmp_path / "run")]
    command += ["--weights", str(first_run)]
    assert main([*command, *(word for key, value in options.items() for word in (f"--{key}", str(value)))]) == 0
    before, after = boxwright.load(first_run).state_dict(), boxwright.load(tmp_path / "run").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def recipe_path(recipe: Recipe, folder: Path) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_what_cannot_be_begun_with(tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights are of the whole detector"):
        boxwright.train(tiny_recipe, drawn, out=tmp_path / "a", weights=first_run, backbone_weights=first_run)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        boxwright.train(tiny_recipe, drawn, out=tmp_path / "a", weights=tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match=r"nothing of it fits this recipe; .* backbone resnet_vd"):
        boxwright.train(
            "retinanet_r18_fpn",
            drawn,
            out=tmp_path / "a",
            weights=first_run,
            overrides={**NOTHING_LEARNED, "image_size": 64},
        )
    assert not (tmp_path / "a").exists()


def test_a_run_goes_on_with_its_own_data_alone(tiny_recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    boxwright.train(tiny_recipe, drawn, out=out, overrides=NOTHING_LEARNED)
    moved = renamed(drawn, tmp_path / "moved", {})
    for split in ("train", "val"):
        (moved / "annotations" / f"{split}.json").write_bytes((drawn / "annotations" / f"{split}.json").read_bytes())
    assert boxwright.train(tiny_recipe, moved, out=out, resume=True, overrides=NOTHING_LEARNED).steps == 1
    document = json.loads((moved / "annotations" / "train.json").read_text())
    document["annotations"] = document["annotations"][1:]
    (moved / "annotations" / "train.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"the annotations of moved are others; .* fine-tuning: .*--weights"):
        boxwright.train(tiny_recipe, moved, out=out, resume=True, overrides=NOTHING_LEARNED)
    document["images"] = document["images"][1:]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    (moved / "annotations" / "train.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"was trained on 10 images of set, and moved has 9; .* fine-tuning"):
        boxwright.train(tiny_recipe, moved, out=out, resume=True, overrides=NOTHING_LEARNED)


def test_colors_are_normalized_as_the_backbone_knows_them(
    tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    source = boxwright.load(first_run)
    mean = (0.25, 0.5, 0.75)
    assert isinstance(source.recipe, boxwright.Recipe)
    source.recipe = dataclasses.replace(source.recipe, input=dataclasses.replace(source.recipe.input, mean=mean))
    source.save(tmp_path / "other.safetensors")
    other = tmp_path / "other.safetensors"
    result = boxwright.train(tiny_recipe, drawn, out=tmp_path / "a", backbone_weights=other, overrides=NOTHING_LEARNED)
    assert result.load().input_format.mean == mean
    heard = Heard()
    typed = {**NOTHING_LEARNED, "input": {"mean": (0.5, 0.5, 0.5)}}
    result = boxwright.train(
        tiny_recipe, drawn, out=tmp_path / "b", backbone_weights=other, observer=heard, overrides=typed
    )
    assert result.load().input_format.mean == (0.5, 0.5, 0.5)
    assert any("--input.mean 0.25,0.5,0.75" in line for line in heard.lines)


def test_the_same_command_goes_on_without_a_word(
    tiny_recipe: Recipe, first_run: Path, drawn: Path, tmp_path: Path
) -> None:
    recipe = {**tiny_recipe, "head": {"name": "rtdetr", "num_queries": 7}, "input": {"image_size": 96}}
    begin: dict[str, Any] = {"weights": first_run, "out": tmp_path / "run"}
    boxwright.train(recipe, drawn, **begin, overrides=NOTHING_LEARNED)
    heard = Heard()
    again = boxwright.train(recipe, drawn, resume=True, observer=heard, **begin, overrides=NOTHING_LEARNED)
    assert again.steps == 1
    finished = (
        "the run is finished, all of its 1 steps are done: to train on, give a greater length, as --train.steps 2"
    )
    assert heard.notes == [finished]
    typed = {**NOTHING_LEARNED, "head.num_queries": 9}
    boxwright.train(recipe, drawn, resume=True, observer=heard, **begin, overrides=typed)
    assert heard.notes == [finished, "the run goes on as it began, with head.num_queries 20, not 9", finished]


def test_what_the_source_brings_is_said(first_run: Path, drawn: Path, tmp_path: Path) -> None:
    heard = Heard()
    result = boxwright.train(
        "rtdetr_tiny", drawn, out=tmp_path / "a", weights=first_run, observer=heard, overrides=NOTHING_LEARNED
    )
    (note,) = [note for note in heard.notes if note.startswith("not as in rtdetr_tiny but as in ")]
    assert "input.image_size 64 (not 160)" in note
    assert "head.num_queries 20 (not " in note
    # It is the source's model, with the recipe's training.
    passport = result.load().passport
    assert passport is not None
    assert passport.recipe == "tiny"
    typed = {**NOTHING_LEARNED, "head.num_queries": 9, "image_size": 96}
    boxwright.train("rtdetr_tiny", drawn, out=tmp_path / "b", weights=first_run, observer=heard, overrides=typed)
    note = [note for note in heard.notes if note.startswith("not as in rtdetr_tiny but as in ")][-1]
    assert "num_queries" not in note.replace("denoising.num_queries", "")
    assert "image_size" not in note
    (note,) = [note for note in heard.notes if "become" in note or "became" in note]
    assert "head.num_queries 20 became 9: --head.num_queries 20" in note


def test_the_longest_side_follows_the_image_size() -> None:
    detector = boxwright.build("detr_r50", num_classes=1, overrides={"backbone.width": 8})
    assert isinstance(detector.recipe, boxwright.Recipe)
    weights = ModelWeights(
        recipe=detector.recipe,
        categories=detector.categories,
        tensors={},
        origin=Origin(source="a run", kind="boxwright"),
        passport=Passport(version="any"),
    )
    heard = Heard()
    recipe = resolve_beginning("detr_r50", {"image_size": 400}, Beginning(detector=weights), heard)
    assert (recipe.input.image_size, recipe.input.max_size) == (400, 666)
    assert not [note for note in heard.notes if "max_size" in note]
