"""``boxwright list``."""

from __future__ import annotations

import pytest

from boxwright.cli.list import run
from boxwright.cli.main import main
from boxwright.compose.combinations import Combination


def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "backbones:",
        "necks:",
        "heads:",
        "recipes:",
    ]
    assert ["fpn", "Feature pyramid network."] in [line.strip().split(maxsplit=1) for line in lines]
    assert any(line.startswith("  rtdetr_r50_m ") for line in lines)
    # Summaries stand below one another, whatever the longest name is.
    for title in ("necks:", "recipes:"):
        block = lines[lines.index(title) + 1 :]
        block = block[: next((i for i, line in enumerate(block) if not line.startswith(" ")), len(block))]
        assert len({len(line) - len(line[2:].partition(" ")[2].lstrip()) for line in block}) == 1


def test_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["heads"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("heads:\n  ")
    assert "\n  rtdetr " in printed
    assert "fpn" not in printed


def test_combinations(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    combinations = [
        Combination("b", "one", "x", None),
        Combination("b", "one", "y", "head y: too few levels"),
        Combination("b", "two", "x", None),
        Combination("b", "two", "y", "head y: too few levels"),
    ]
    monkeypatch.setattr("boxwright.compose.combinations.combinations", lambda: combinations)
    monkeypatch.setattr("boxwright.cli.list.list_parts", lambda _: ["x", "y"])
    assert run(["--combinations"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "backbone  neck  x    y",
        "b         one   yes  no (1)",
        "b         two   yes  no (1)",
        "(1) head y: too few levels",
    ]


@pytest.mark.parametrize("arguments", [["nekcs"], ["necks", "heads"], ["--long"], ["necks", "--combinations"]])
def test_mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
