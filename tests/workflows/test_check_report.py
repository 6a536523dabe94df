"""The report of a check: lines, JSON, page, exit status; real sets without false findings; a few lines in training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.workflows.check import brief_check, check
from sound_set import SoundSet

SHARED = Path(__file__).parents[3] / "shared" / "data"

ADMITTED = {
    "bccd": {"near_image_in_splits": 1},
    "deeppcb": {},
    "nuclei": {"image_gray": 557 + 111, "twin_split": 1},
    "coco_mini": {
        "rare_class": 41,
        "unused_class": 20,
        "class_not_in_val": 16,
        "class_not_in_train": 9,
        "frequency_shift": 1,
        "whole_image_box": 1,
        "empty_image": 1,
    },
}
"""Admitted by the READMEs of the real sets: the pair 00037 and 00038, gray images, few images of 80 classes."""


def damaged_set(folder: Path) -> Path:
    sound = SoundSet(folder)
    sound.annotations().append(dict(sound.annotations()[0], id=9000))
    sound.after.append(lambda images: (images / "005.png").unlink())
    return sound.write()


@pytest.mark.slow
@pytest.mark.parametrize("name", ADMITTED)
def test_nothing_false_is_found_in_real_sets(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real data set {name!r} is not beside the repository")
    assert Counter(one.finding.kind.name for one in check(SHARED / name).findings) == ADMITTED[name]


@pytest.mark.slow
def test_the_defects_of_the_voc_files_are_found() -> None:
    if not (SHARED / "bccd").is_dir():
        pytest.skip("the real data set 'bccd' is not beside the repository")
    from boxwright.workflows.reading import DataFiles

    report = check(DataFiles(folder=SHARED / "bccd", data_format="voc"))
    names = {kind.name: {one.finding.subject for one in members} for kind, members in report.by_kind().items()}
    assert len(names["duplicate_box"]) == 8
    assert names["empty_box"] == {"BloodImage_00343.jpg", "BloodImage_00338.jpg"}


def test_the_command_names_faults_and_returns_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = damaged_set(tmp_path / "set")
    page, numbers = tmp_path / "page.html", tmp_path / "check.json"
    assert main(["check", str(folder), "--html", str(page), "--json", str(numbers)]) == 1
    printed = capsys.readouterr().out
    assert "errors:" in printed
    assert "train: 005.png (" in printed
    assert "3 objects are dropped with it" in printed
    assert "train: 001.png (annotation 9000 (cell): IoU 1.00 with annotation 10)" in printed
    written = json.loads(numbers.read_text())
    assert written["counts"]["duplicate_box"] == written["counts"]["image_missing"] == 1
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") == 1  # of the image that is there
    assert "duplicate_box" in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_sound_set_returns_0_and_a_missing_one_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(SoundSet(tmp_path / "set").write())]) == 0
    assert "0 errors, 0 warnings, 0 notes" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none")]) == 2
    assert main(["check", str(tmp_path / "set"), "--image-size", "320"]) == 2
    assert "give it with --recipe" in capsys.readouterr().err


def test_training_hears_a_few_lines(tmp_path: Path) -> None:
    sound = SoundSet(tmp_path / "set")
    for kind in range(8):
        sound.annotations().append(dict(sound.annotations()[kind], id=9000 + kind))
    folder = sound.write()
    lines = brief_check({split: open_data(folder, split) for split in ("train", "val")}, "detection")
    assert lines[0].startswith("warning: 8 objects are annotated twice, with the same class: train: 001.png")
    assert lines[-1] == "all of them by name: `boxwright check DATA`"
    assert len(lines) == 2
    sound_lines = brief_check({"train": open_data(folder, "val")}, "detection")
    assert sound_lines == []
