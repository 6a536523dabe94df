"""``boxwright list``."""

from __future__ import annotations

import pytest

from boxwright.cli.list import run
from boxwright.cli.main import main


def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "backbones:",
        "necks:",
        "heads:",
        "recipes:",
    ]
    assert "  fpn                 Feature pyramid network." in lines
    assert any(line.startswith("  rtdetr_r50_m ") for line in lines)


def test_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["heads"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("heads:\n  ")
    assert "\n  rtdetr " in printed
    assert "fpn" not in printed


@pytest.mark.parametrize("arguments", [["nekcs"], ["necks", "heads"], ["--long"]])
def test_mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
