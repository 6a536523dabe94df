"""Parts of a check beyond the data set itself: they count in the report, and one that fails takes no other with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.evaluation.agreement import Agreement
from boxwright.evaluation.label_errors import Suspicion
from boxwright.training.overfit import OverfitResult
from boxwright.workflows import check as module
from boxwright.workflows.check import brief_check, check
from boxwright.workflows.check_fit import FitCheck, RunTime
from boxwright.workflows.check_learning import LearningCheck
from boxwright.workflows.label_errors import LabelErrors, find_label_errors
from boxwright.workflows.memory_limits import FreeMemory
from heard import Heard
from image_plants import change_file
from sound_set import SoundSet

GIB = 2**30

SMALL = ("--recipe", "rtdetr_tiny", "--image-size", "128", "--backbone.width", "8")
"""A recipe for which the objects of a sound set are large enough."""

FIT = FitCheck(
    device="cpu",
    input_size=(160, 160),
    most_objects=3,
    batch_size=16,
    images_at_once=16,
    peak=2 * GIB + 1,
    capacity=FreeMemory(2 * GIB, "machine"),
    basis="exceeded",
    step_seconds=None,
    run=RunTime(12, None, None, None, None),
    advice=("--image-size 96",),
    failure=None,
)

LEARNED = LearningCheck(
    images=("001.png",),
    objects=3,
    classes=(3, 3),
    metric="AP50",
    before=0.0,
    after=0.1,
    result=OverfitResult((4.0, 3.5, 3.4), 100, 9.0),
    unseen=Agreement(8, 4.5, None),
    is_frozen=False,
)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A data set without any fault."""
    return SoundSet(tmp_path / "set").write()


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A data set with one fault, which must be named whatever else fails."""
    sound = SoundSet(tmp_path / "set")
    sound.annotations().append(dict(sound.annotations()[0], id=9000))
    return sound.write()


def counts(folder: Path, *options: str | Path) -> tuple[int, dict[str, int], dict[str, Any]]:
    """Run ``boxwright check``; return its status, the number of findings of each kind, and the document."""
    target = folder.parent / "check.json"
    status = main(["check", str(folder), *map(str, options), "--json", str(target)])
    document = json.loads(target.read_text())
    return status, document["counts"], document


def set_of(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """Let parts of the check come to these results, or errors."""
    for name, result in parts.items():

        def make(*_: object, result: Any = result, **__: object) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(module, name, make)


def suspect(folder: Path) -> LabelErrors:
    data = open_data(folder, "train")
    first = data.records[0]
    own, seen = (1.0, 2.0, 30.0, 40.0), (40.0, 5.0, 66.0, 47.0)
    number = first.annotation_ids[0]
    suspicions = (
        Suspicion("badly_placed", 3.0, first.image_id, number, 0, own, 0, seen, 0.9, 0.55),
        Suspicion("overlooked", 0.8, first.image_id, None, 2, seen, 2, seen, 0.95, 0.0),
        Suspicion("overlooked", 0.8, first.image_id, None, 2, seen, 2, seen, 0.95, 0.0),
        Suspicion("wrong_class", 0.1, first.image_id, number + 1, 0, own, 0, own, 0.9, 0.9),
    )
    return LabelErrors(data=data, suspicions=suspicions, folds=3, ap50=0.876)


def test_a_sound_set_stays_sound_with_a_recipe(sound: Path) -> None:
    status, numbers, document = counts(sound, *SMALL)
    assert (status, numbers) == (0, {})
    assert document["parts"]["network"]["classes"][0]["name"] == "cell"
    assert document["parts"]["network"]["lines"][0] == "network input: square, 128 pixels"


def test_what_the_network_will_see_counts(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--recipe", "retinanet_r18_fpn", "--image-size", "32", "--backbone.width", "8")
    status, numbers, document = counts(sound, *options)
    assert status == 0
    assert numbers["small_objects"] == numbers["unfit_anchors"] == 3
    assert {one["split"] for one in document["findings"] if one["kind"] == "small_objects"} == {"train"}
    printed = capsys.readouterr().out
    assert printed.count("train: screw (12 of 12 (100.0%) objects below 8 pixels") == 1
    assert f"0 errors, {sum(numbers.values())} warnings, 0 notes" in printed


def test_what_does_not_fit_is_an_error_and_is_not_tried_further(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_of(monkeypatch, check_fit=FIT, check_learning=AssertionError("the system may end this process"))
    status, numbers, document = counts(faulty, *SMALL, "--try")
    assert status == 1
    assert numbers == {"does_not_fit": 1, "part_not_checked": 1, "duplicate_box": 1}
    assert document["parts"]["fit"]["fits"] is False
    assert document["parts"]["fit"]["advice"] == ["--image-size 96"]
    assert document["parts"]["fit"]["capacity"] == {"bytes": 2 * GIB, "owner": "machine"}
    memory = "more than 2.00 GiB of 2.00 GiB (machine)"
    assert [one["detail"] for one in document["findings"] if one["kind"] == "does_not_fit"] == [memory]
    assert FIT.lines()[1] == f"memory: {memory}, memory ran out: does not fit"


def test_what_does_not_learn_counts(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_of(monkeypatch, check_fit=replace(FIT, peak=GIB, basis="measured"), check_learning=LEARNED)
    status, numbers, document = counts(sound, *SMALL, "--try")
    assert (status, numbers) == (0, {"does_not_learn": 1})
    assert document["parts"]["learning"]["verdict"] == "does not learn"
    assert document["parts"]["learning"]["unseen"] == {"images": 8, "boxes": 4.5, "classes": None}


def test_label_errors_count_and_are_ranked_in_json_and_drawn_on_the_page(
    sound: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = suspect(sound)
    set_of(monkeypatch, find_label_errors=errors)
    page = tmp_path / "page.html"
    status, numbers, document = counts(sound, "--model", trained, "--html", page)
    assert (status, numbers) == (0, {"overlooked_object": 2, "badly_placed_box": 1})
    part = document["parts"]["label_errors"]
    assert (part["folds"], part["split"], len(part["ranking"])) == (3, "train", 4)
    assert part["ranking"][0]["image"] == "001.png"
    assert page.read_text().count("data:image/jpeg;base64,") == 3
    monkeypatch.setattr(LabelErrors, "predictions", lambda _: {})
    without = tmp_path / "without.html"
    check(sound, model=trained, html=without)
    assert len(page.read_text()) != len(without.read_text())  # what the model sees is drawn, too


@pytest.mark.parametrize(
    ("parts", "kind", "subject"),
    [
        ({"check_network": ValueError("the head does not fit")}, "part_not_checked", "what the network will see"),
        ({"check_fit": OSError("no process can be started")}, "part_not_checked", "the fit"),
        ({"check_learning": ValueError("training has diverged: loss nan")}, "diverges", "will it learn"),
        ({"check_learning": MemoryError()}, "part_not_checked", "will it learn"),
        ({"find_label_errors": ValueError("training has diverged: loss nan")}, "part_not_checked", "label errors"),
        ({"find_label_errors": FileNotFoundError("train/1.jpg is gone")}, "part_not_checked", "label errors"),
        ({"write_repaired": OSError(28, "No space left on device")}, "part_not_checked", "repaired copy"),
        ({"write_page": OSError(28, "No space left on device")}, "part_not_checked", "page"),
    ],
)
def test_a_part_that_fails_takes_no_finding_with_it(
    parts: dict[str, Any],
    kind: str,
    subject: str,
    faulty: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = {"check_fit": replace(FIT, peak=GIB), "check_learning": replace(LEARNED, after=0.9)}
    whole = {"find_label_errors": replace(suspect(faulty), suspicions=()), "write_repaired": [], "write_page": None}
    set_of(monkeypatch, **{**good, **whole, **parts})
    asked = ("--try", "--model", trained, "--fix", tmp_path / "copy", "--html", tmp_path / "page.html")
    status, numbers, document = counts(faulty, *SMALL, *asked)
    assert numbers == {kind: 1, "duplicate_box": 1}
    assert [one["subject"] for one in document["findings"] if one["kind"] == kind] == [subject]
    assert status == (1 if kind == "part_not_checked" else 0)
    assert document["fixed"] == (None if subject == "repaired copy" else str(tmp_path / "copy"))


@pytest.mark.parametrize("options", [("--try",), ()])
def test_a_split_without_objects_is_said_once(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = SoundSet(tmp_path / "set")
    plant.annotations().clear()
    set_of(monkeypatch, check_fit=replace(FIT, peak=GIB))
    status, numbers, document = counts(plant.write(), *SMALL, *options)
    assert status == 1
    assert numbers == {"no_objects": 1, **({"part_not_checked": 1} if options else {})}
    assert document["parts"]["network"]["lines"][1:] == ["train: no objects to measure"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--model", "nowhere/run"), "nowhere/run"),
        (("--model", "TRAINED", "--folds", "1"), "folds are at least 2"),
        (("--model", "TRAINED", "--folds", "-2"), "folds are at least 2"),
        (("--model", "TRAINED", "--train.stepz", "3"), "stepz"),
        (("--folds", "3"), "--folds is about label errors: give it with --model RUN"),
        (("--label-split", "val"), "--label-split is about label errors: give it with --model RUN"),
        (("--model", "TRAINED", "--folds", "0", "--train.steps", "3"), "--train.steps changes a recipe"),
        (("--json", "set"), "set is a folder"),
    ],
)
def test_arguments_are_checked_before_any_image_is_read(
    argv: tuple[str, ...],
    message: str,
    sound: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_of(monkeypatch, read_splits=AssertionError("images were read"))
    monkeypatch.chdir(sound.parent)
    assert main(["check", str(sound), *(str(trained) if one == "TRAINED" else one for one in argv)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux") or not os.access("/proc", os.W_OK), reason="not root of Linux")
@pytest.mark.parametrize("option", ["--fix", "--html", "--json"])
def test_a_folder_that_takes_no_files_is_refused_before_any_image_is_read(
    option: str, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_of(monkeypatch, read_splits=AssertionError("images were read"))
    assert main(["check", str(sound), option, "/proc/check"]) == 2
    assert "/proc/check" in (printed := capsys.readouterr().err)
    assert "cannot be written: /proc takes no files" in printed


def two_points(sound: SoundSet) -> None:
    for one in (*sound.annotations(), *sound.annotations("val")):
        one["segmentation"] = [[1, 1, 5, 5]]


def without_mask(sound: SoundSet) -> None:
    sound.annotations()[0].pop("segmentation")


def crowd_without_mask(sound: SoundSet) -> None:
    sound.annotations("val")[0].pop("segmentation")
    sound.annotations("val")[0]["iscrowd"] = 1


@pytest.mark.parametrize(
    ("plant", "masks", "splits"),
    [
        (lambda _: None, False, {"train", "val"}),
        (lambda _: None, True, set()),
        (two_points, True, {"train", "val"}),
        (without_mask, True, {"train"}),
        (crowd_without_mask, True, {"val"}),
    ],
)
def test_masks_are_errors_where_the_recipe_needs_them(
    plant: Callable[[SoundSet], None], masks: bool, splits: set[str], tmp_path: Path
) -> None:
    sound = SoundSet(tmp_path / "set", masks=masks)
    plant(sound)
    folder = sound.write()
    needing = check(folder, recipe="mask_rcnn_r18_fpn", overrides={"backbone.width": 8})
    errors = {(one.split, one.finding.kind.name) for one in needing.findings if one.finding.kind.severity == "error"}
    assert errors == {(split, "masks_stop_training") for split in splits}
    for recipe in ("retinanet_r18_fpn", None):
        changes = None if recipe is None else {"backbone.width": 8}
        assert not check(folder, recipe=recipe, overrides=changes).has_errors


def test_training_says_what_the_network_will_see(sound: Path) -> None:
    import boxwright

    splits = {split: open_data(sound, split) for split in ("train", "val")}
    changes = {"image_size": 32, "backbone.width": 8}
    detector = boxwright.build("rtdetr_tiny", num_classes=3, overrides=changes)
    lines = brief_check(splits, "detection", detector)
    assert lines[0].startswith("warning: objects below 8 pixels in the network input: ")
    assert brief_check(splits, "detection") == []


def test_the_command_train_says_it(
    sound: Path, tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boxwright
    from boxwright.workflows import train as training

    class EndedError(Exception):
        pass

    def end(*_: object, **__: object) -> None:
        raise EndedError

    monkeypatch.setattr(training, "run_training", end)
    heard = Heard()
    with pytest.raises(EndedError):
        boxwright.train(tiny_recipe, sound, out=tmp_path / "run", observer=heard, overrides={"image_size": 32})
    assert any(line.startswith("warning: objects below 8 pixels in the network input: ") for line in heard.lines)


def test_errors_and_warnings_are_told_apart_in_training(tmp_path: Path) -> None:
    plant = SoundSet(tmp_path / "set")
    plant.annotations().append(dict(plant.annotations()[0], id=9000))
    plant.annotations("val").clear()
    folder = plant.write()
    lines = brief_check({split: open_data(folder, split) for split in ("train", "val")}, "detection")
    assert [line.partition(":")[0] for line in lines] == ["error", "warning", "all of them by name"]


def test_a_damaged_image_does_not_end_the_ranking(tmp_path: Path, trained: Path) -> None:
    plant = SoundSet(tmp_path / "set")
    change_file(lambda path: path.write_bytes(b"damaged"))(plant)
    errors = find_label_errors(plant.write(), trained, 2, observer=Heard(), overrides={"train.steps": 1})
    assert len(errors.data.records) == 11
    assert errors.folds == 2


def test_another_split_is_ranked_and_the_folds_are_as_short_as_typed(sound: Path, trained: Path) -> None:
    argv = ("--model", trained, "--folds", "2", "--label-split", "val", "--train.steps", "1")
    status, _, document = counts(sound, *argv)
    assert status == 0
    assert document["parts"]["label_errors"]["split"] == "val"
    assert sum(one["annotation_id"] is not None for one in document["parts"]["label_errors"]["ranking"]) == 30


def test_notes_of_reading_are_not_said_twice(tmp_path: Path, trained: Path) -> None:
    plant = SoundSet(tmp_path / "set")
    change_file(Path.unlink)(plant)
    heard = Heard()
    report = check(plant.write(), model=trained, folds=2, observer=heard, overrides={"train.steps": 1})
    assert "image_missing" in {one.finding.kind.name for one in report.findings}
    assert not any("001.png" in note for note in heard.notes)


def test_a_hyphen_is_standard_output(sound: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sound), "--json", "-"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["counts"] == {}
    assert "nothing stops training" in printed.err
    assert not Path("-").exists()
