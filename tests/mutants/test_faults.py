"""The list of silent faults moves with the code: each is of a text that is there, and has tests that there are."""

from __future__ import annotations

import ast
from functools import cache

import pytest
from faults import ROOT, Fault, read_faults

AREAS = {"losses", "matching", "boxes", "queries", "networks", "training", "augmentation", "data", "evaluation"}
LEAST = 120
FAULTS = read_faults()


@cache
def names_of_tests(file: str) -> frozenset[str]:
    """Functions of a test file, methods as CLASS::METHOD, and the classes themselves."""
    names = set()
    for node in ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return frozenset(names)


def test_there_are_enough_of_every_area() -> None:
    assert len(FAULTS) >= LEAST
    assert {fault.area for fault in FAULTS} >= AREAS
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.file, fault.text, fault.replacement) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_of_a_text_that_is_there_once(fault: Fault) -> None:
    planted = fault.plant(fault.path.read_text(encoding="utf-8"))
    assert planted != fault.path.read_text(encoding="utf-8")
    ast.parse(planted)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_its_tests_are_there(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert (ROOT / "tests" / file).is_file(), f"there is no {file}"
        assert not name or name.partition("[")[0] in names_of_tests(file), f"{file} has no {name}"
