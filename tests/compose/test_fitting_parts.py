"""Parts that fit together."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from boxwright.compose import combinations as module
from boxwright.compose.combinations import Combination, combinations
from boxwright.structures import Level, Spec


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_spec: Spec = {"c4": Level(4, 16), "extra": Level(4, 16, auxiliary=True)}


class Picky(nn.Module):
    def __init__(self, in_spec: Spec, *_: Any) -> None:
        super().__init__()
        self.out_spec: Spec = {"c4": Level(8, 16)}
        assert list(in_spec) == ["c4"], "auxiliary levels pass necks by"


class TwoLevels(nn.Module):
    def __init__(self, in_spec: Spec, _: int) -> None:
        super().__init__()
        if [name for name, level in in_spec.items() if not level.auxiliary] != ["c3", "c4"]:
            raise ValueError(f"needs two levels, not {list(in_spec)}")


def test_the_reason_why_parts_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"backbones": {"b": Backbone}, "necks": {"n": Picky}, "heads": {"h": TwoLevels}}
    monkeypatch.setattr(module, "list_parts", lambda folder: list(parts[folder]))
    monkeypatch.setattr(module, "find_part", lambda folder, name: parts[folder][name])
    assert list(combinations()) == [Combination("b", "n", "h", "head h: needs two levels, not ['extra', 'c4']")]


def test_a_part_that_cannot_be_built_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(nn.Module):
        def __init__(self) -> None:
            raise ValueError("not installed")

    parts = {"backbones": {"b": Missing}, "necks": {"n": Picky, "m": Picky}, "heads": {"h": TwoLevels}}
    monkeypatch.setattr(module, "list_parts", lambda folder: list(parts[folder]))
    monkeypatch.setattr(module, "find_part", lambda folder, name: parts[folder][name])
    assert {combination.problem for combination in combinations()} == {"backbone b: not installed"}
