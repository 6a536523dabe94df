"""``boxwright info``: sizes and costs."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from boxwright.cli.main import main

SMALL = ["--image-size", "64", "--head.num_queries", "20"]


def info(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        assert main(["info", *arguments, "--json", f"{folder}/facts.json"]) == 0
        capsys.readouterr()
        return dict(json.loads(Path(folder, "facts.json").read_text()))


def test_json_on_standard_output_is_all_that_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "rtdetr_tiny", *SMALL, "--json", "/dev/stdout"]) == 0
    assert json.loads(capfd.readouterr().out)["params"] > 0


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "rtdetr_tiny", *SMALL, "--json", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err


def test_rtdetr_r18_has_the_published_size_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    facts = info(capsys, "rtdetr_r18")
    assert facts["params"] == facts["trainable_params"] == 20_184_464
    assert facts["gmac"] == pytest.approx(30.744, abs=5e-4)
    # With its branches fused the published model takes 30.252. It runs its box head (256-256-256-4) on all 8,400
    # tokens, ours on the selected 300.
    spared = (8400 - 300) * (2 * 256 * 256 + 256 * 4) / 1e9
    assert facts["deployed_gmac"] + spared == pytest.approx(30.252, abs=5e-4)


def test_a_row_per_part_and_the_rows_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    facts = info(capsys, "rtdetr_r50", "--neck", "fpn,identity", "--num-classes", "3", *SMALL)
    parts = facts["parts"]
    assert [(part["slot"], part["name"]) for part in parts] == [
        ("backbone", "resnet_vd"),
        ("neck.0", "fpn"),
        ("neck.1", "identity"),
        ("head", "rtdetr"),
    ]
    for key in ("params", "trainable_params", "gmac"):
        assert sum(part[key] for part in parts) == pytest.approx(facts[key], rel=1e-12)
    # FPN on 512, 1024 and 2048 channels: 1 x 1 to 256 and 3 x 3, with biases.
    assert parts[1]["params"] == (512 + 1024 + 2048) * 256 + 3 * 256 + 3 * (256 * 256 * 9 + 256)
    # 8 x 8, 4 x 4 and 2 x 2 cells.
    cells = {512: 64, 1024: 16, 2048: 4}
    macs = sum(n * (channels * 256 + 256 * 256 * 9) for channels, n in cells.items())
    assert parts[1]["gmac"] == pytest.approx(macs / 1e9, rel=1e-12)


def test_frozen_parts_are_not_trainable(capsys: pytest.CaptureFixture[str]) -> None:
    facts = info(capsys, "rtdetr_r50", *SMALL)
    stem = 3 * 32 * 9 + 32 * 32 * 9 + 32 * 64 * 9
    assert facts["params"] - facts["trainable_params"] == stem


def test_classes_count(capsys: pytest.CaptureFixture[str]) -> None:
    few = info(capsys, "rtdetr_r18", "--num-classes", "3", *SMALL)
    more = info(capsys, "rtdetr_r18", "--num-classes", "4", *SMALL)
    # A row and a bias in the encoder's and each of three decoder layers' classifiers; a denoising embedding.
    assert more["params"] - few["params"] == 4 * 257 + 256


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "rtdetr_r18", "--neck", "fpn", *SMALL]) == 0
    printed, notes = capsys.readouterr()
    assert "GMAC at 64 x 64" in printed
    assert "17,219,728" in printed
    assert notes == "neck: hybrid_encoder was replaced by fpn; its options are dropped: expansion=0.5\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which recipe?"),
        (["rtdetr_r18", "--num-classes", "0"], "--num-classes is at least 1"),
        (["rtdetr_r18", "--num-classes", "many"], "--num-classes: invalid int value: 'many'"),
        (["rtdetr_r18", "--image-size", "100"], "multiple of 32"),
        (["rtdetr_r18", "--neck.expansion", "0"], "neck (hybrid_encoder): expansion leaves"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *arguments]) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert message in error
    assert error.count("\n") == 1


def test_operations_are_what_efficientdet_was_published_with(capsys: pytest.CaptureFixture[str]) -> None:
    products = info(capsys, "efficientdet_d0", "--num-classes", "90")
    operations = info(capsys, "efficientdet_d0", "--num-classes", "90", "--count", "operations")
    assert operations["params"] == 3_880_067
    assert operations["gmac"] == pytest.approx(2.550618821, rel=2e-3)
    assert products["gmac"] < 0.98 * operations["gmac"]


def test_masks_are_not_counted_whatever_a_fresh_head_takes_for_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """With few classes every one is likelier than the least score."""
    costs = [
        info(
            capsys,
            "mask_rcnn_r18_fpn",
            "--image-size",
            "64",
            "--head.detection.score_threshold",
            threshold,
            "--num-classes",
            "3",
        )
        for threshold in ("0", "0.9")
    ]
    assert costs[0]["gmac"] == costs[1]["gmac"]
    assert costs[0]["deployed_gmac"] == costs[1]["deployed_gmac"]
