"""Label errors found by models of k folds: every image is predicted by one that has not seen it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import boxwright
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.evaluation.label_errors import Suspicion
from boxwright.passport import TrainingData
from boxwright.training.interrupt import Interrupted
from boxwright.weights.model import read_model
from boxwright.workflows import fold_training, label_errors
from boxwright.workflows.fold_training import prepare_training
from boxwright.workflows.label_errors import LabelErrors, find_label_errors
from boxwright.workflows.passports import describe_data
from heard import Heard


class Trace:
    """Images that were trained on and predicted, fold by fold, and the options of training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[set[int]] = []
        self.predicted: list[set[int]] = []
        self.recipes: list[Any] = []
        train, predict = label_errors.train_on, label_errors.predict_images

        def train_on(data: DetectionData, training: Any, folder: Path, progress: Any) -> Any:
            self.trained.append({record.image_id for record in data.records})
            self.recipes.append(training.recipe)
            return train(data, training, folder, progress)

        def predict_some(detector: Any, data: DetectionData, most: int, progress: Any) -> Any:
            self.predicted.append({record.image_id for record in data.records})
            return predict(detector, data, most, progress)

        monkeypatch.setattr(label_errors, "train_on", train_on)
        monkeypatch.setattr(label_errors, "predict_images", predict_some)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_image_is_predicted_by_a_model_that_has_not_seen_it(
    trained: Path, drawn: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, heard = Trace(monkeypatch), Heard()
    errors = find_label_errors(drawn, trained, 3, observer=heard, overrides={"train.steps": 2})
    data = open_data(drawn, "train")
    images = {record.image_id for record in data.records}
    assert [seen & unseen for seen, unseen in zip(trace.trained, trace.predicted, strict=True)] == [set()] * 3
    assert [seen | unseen for seen, unseen in zip(trace.trained, trace.predicted, strict=True)] == [images] * 3
    assert set.union(*trace.predicted) == images
    assert sum(map(len, trace.predicted)) == len(images)
    assert errors.num_annotations == sum(len(record.labels) for record in data.records)
    assert errors.folds == 3
    assert list(temporary.iterdir()) == []
    assert heard.lines == ["3 folds, 2 steps of training for each, from random weights"]
    assert not any("label" in note for note in heard.notes)


def test_a_length_is_shortened_to_the_images_of_a_fold_unless_it_is_typed(trained: Path) -> None:
    model = read_model(trained)
    steps = model.recipe.train.steps
    assert steps == 6
    data = TrainingData(name="set", num_images=10)

    def train_options(folds: int, **overrides: Any) -> Any:
        return prepare_training(model, data, folds, overrides, Heard()).recipe.train

    assert train_options(3).steps == 4
    assert train_options(2).steps == 3
    assert train_options(3, **{"train.steps": 5}).steps == 5
    budget = train_options(3, **{"train.budget": "30s"})
    assert (budget.budget, budget.steps) == ("30s", None)
    epochs = train_options(3, train={"epochs": 7})
    assert (epochs.epochs, epochs.steps, epochs.budget) == (7, None, None)
    assert train_options(3).schedule.evaluations == 1


def test_a_budget_is_shortened_too(trained: Path) -> None:
    model = read_model(trained, overrides={"train.steps": None, "train.budget": "3m"})
    training = prepare_training(model, TrainingData(name="set", num_images=9), 3, {}, Heard())
    assert training.recipe.train.budget == "120.0s"


def test_training_begins_as_that_of_the_model_did_and_never_with_what_has_seen_the_data(
    trained: Path, drawn: Path, tmp_path: Path, tiny_recipe: dict[str, Any]
) -> None:
    own = describe_data(open_data(drawn, "train"), drawn)
    other = TrainingData(name="others", num_images=3, sha256="0")
    short = {"train.steps": 1}
    boxwright.train(tiny_recipe, drawn, out=tmp_path / "tuned", weights=trained, observer=Heard(), overrides=short)
    boxwright.train(
        tiny_recipe, drawn, out=tmp_path / "body", backbone_weights=trained, observer=Heard(), overrides=short
    )

    def beginning(run: Path, data: TrainingData) -> str:
        heard = Heard()
        prepare_training(read_model(run), data, 3, {}, heard)
        return heard.lines[-1].partition("from ")[2]

    assert beginning(trained, own) == "random weights"
    assert beginning(trained, other) == str(trained / "best.safetensors")
    assert beginning(tmp_path / "body", own) == f"the backbone of {trained / 'best.safetensors'}"
    # Fine-tuned from a run on the same data: as that one began.
    assert beginning(tmp_path / "tuned", own) == "random weights"
    assert beginning(tmp_path / "tuned", other) == str(tmp_path / "tuned" / "best.safetensors")


def test_weights_that_are_gone_are_replaced_by_the_backbone(
    trained: Path, drawn: Path, tmp_path: Path, tiny_recipe: dict[str, Any]
) -> None:
    source = shutil.copytree(trained, tmp_path / "source")
    boxwright.train(
        tiny_recipe,
        drawn,
        out=tmp_path / "run",
        backbone_weights=source,
        observer=Heard(),
        overrides={"train.steps": 1},
    )
    shutil.rmtree(source)
    heard = Heard()
    own = describe_data(open_data(drawn, "train"), drawn)
    training = prepare_training(read_model(tmp_path / "run"), own, 3, {}, heard)
    assert training.beginning.backbone is not None
    assert heard.notes[-1].startswith("the weights that training began with cannot be read (")
    assert heard.lines[-1].endswith(f"from the backbone of {tmp_path / 'run' / 'best.safetensors'}")


def test_no_folds_are_predictions_of_the_model_itself(
    trained: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, heard = Trace(monkeypatch), Heard()
    errors = find_label_errors(drawn, trained, 0, observer=heard)
    assert (trace.trained, len(trace.predicted), errors.folds) == ([], 1, 0)
    assert f"{trained} was trained on this data and repeats its errors: give --folds 3" in heard.notes


@pytest.mark.parametrize("folds", [-1, 1])
def test_a_number_of_folds_that_there_is_not(trained: Path, drawn: Path, folds: int) -> None:
    with pytest.raises(
        ValueError, match=f"^folds are at least 2, or 0 for predictions of the model itself, not {folds}$"
    ):
        find_label_errors(drawn, trained, folds)


def test_more_folds_than_images(trained: Path, drawn: Path) -> None:
    with pytest.raises(ValueError, match="11 folds of 10 different images"):
        find_label_errors(drawn, trained, 11, observer=Heard())


def test_a_classifier_finds_no_label_errors(drawn: Path, tmp_path: Path) -> None:
    detector = boxwright.build("resnet18_classifier", num_classes=2, overrides={"backbone.width": 8})
    boxwright.save(detector, tmp_path / "classifier.safetensors")
    with pytest.raises(ValueError, match="label errors are found by a detector, and this model is for classification"):
        find_label_errors(drawn, tmp_path / "classifier.safetensors")


def test_an_interrupted_search_leaves_nothing(
    trained: Path, drawn: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: Any) -> None:
        run.folder.joinpath("last.pt").write_bytes(b"unfinished")
        raise Interrupted

    monkeypatch.setattr(fold_training, "run_training", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_label_errors(drawn, trained, 3, observer=Heard())
    assert list(temporary.iterdir()) == []


def make_errors(drawn: Path) -> LabelErrors:
    data = open_data(drawn, "train")
    image = data.records[0].image_id
    own, seen = (1.0, 2.0, 30.0, 40.0), (4.0, 5.0, 36.0, 47.0)
    suspicions = (
        Suspicion("wrong_class", 9.0, image, 11, 0, own, 1, seen, 0.97, 0.8),
        Suspicion("badly_placed", 3.0, image, 12, 0, own, 0, seen, 0.9, 0.55),
        Suspicion("overlooked", 0.8, image, None, 2, seen, 2, seen, 0.95, 0.0),
        Suspicion("spurious", 0.6, image, 13, 1, own, None, None, 0.0, 0.0),
        *(Suspicion("wrong_class", 0.1, image, number, 0, own, 0, own, 0.9, 0.9) for number in range(14, 31)),
    )
    return LabelErrors(data=data, suspicions=suspicions, folds=3, ap50=0.876)


def test_findings_and_lines_name_the_image_the_annotation_and_the_reason(drawn: Path) -> None:
    errors = make_errors(drawn)
    names = [category.name for category in errors.data.categories]
    image = errors.data.records[0].path.name
    assert [finding.kind.name for finding in errors.findings] == [
        "wrong_class",
        "badly_placed_box",
        "overlooked_object",
        "spurious_box",
    ]
    assert {finding.subject for finding in errors.findings} == {image}
    assert (
        errors.findings[0].detail == f"annotation 11, {names[0]} at [1, 2, 30, 40]: looks like {names[1]}, score 0.97"
    )
    assert errors.lines(2) == [
        "label errors: 20 annotations and 1 predicted objects without one, ranked by 3 models that had not seen the "
        "image (AP50 0.88 against the annotations)",
        "  1 annotations are probably of another class",
        "  1 boxes are probably badly placed",
        "  1 objects are probably not annotated",
        "  1 boxes are probably around no object",
        "  the first 2 of 4 to look at:",
        f"    {image}: {errors.findings[0].detail}",
        f"    {image}: annotation 12, {names[0]} at [1, 2, 30, 40]: the object is at [4, 5, 36, 47], IoU 0.55",
    ]
    assert len(errors.first(0.15)) == 3
    row = errors.to_json()[2]
    assert (row["kind"], row["image"], row["label"], row["probability"]) == ("overlooked", image, names[2], 0.8)
    assert json.loads(json.dumps(errors.to_json()))[3]["predicted_label"] is None
