"""Passports in files of other layouts."""

from __future__ import annotations

import pytest

from boxwright.passport import Passport, TrainingData
from boxwright.weights.carried_passport import KEY, passport_header, take_passport

PASSPORT = Passport(version="1", data=TrainingData(name="boats", num_images=3), parent=Passport(version="0"))


def test_there_and_back() -> None:
    assert take_passport({"format": "pt", **passport_header(PASSPORT)}) == (PASSPORT, [])
    assert take_passport({"format": "pt", **passport_header(None)}) == (None, [])
    assert take_passport({KEY: 3}) == (None, [])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"version": "1", "parent": 3}', "[" * 100_000])
def test_a_damaged_one_is_left_out_with_a_note(text: str) -> None:
    passport, (note,) = take_passport({KEY: text})
    assert passport is None
    assert "damaged" in note
