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


def test_a_text_that_is_gone_or_stands_twice_is_an_error() -> None:
    fault = Fault("area", "name", "file.py", "a = 1", "a = 2", ())
    assert fault.plant("a = 1; b = 1") == "a = 2; b = 1"
    for source in ("b = 1", "a = 1; a = 1"):
        with pytest.raises(ValueError, match=r"area: name: file\.py has its text"):
            fault.plant(source)


def test_there_are_enough_of_every_area() -> None:
    assert len(FAULTS) >= LEAST
    assert {fault.area for fault in FAULTS} >= AREAS
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.file, fault.text, fault.replacement) for fault in FAULTS}) == len(FAULTS)


def test_each_is_of_a_text_that_is_there_once() -> None:
    gone = []
    for fault in FAULTS:
        source = fault.path.read_text(encoding="utf-8")
        try:
            planted = fault.plant(source)
        except ValueError as error:
            gone.append(str(error))
            continue
        ast.parse(planted)
        assert planted != source, fault.name
    assert not gone, "\n".join(gone)


def test_their_tests_are_there() -> None:
    gone = []
    for fault in FAULTS:
        assert fault.tests, fault.name
        for test in fault.tests:
            file, _, name = test.partition("::")
            if not (ROOT / "tests" / file).is_file():
                gone.append(f"{fault.name}: there is no {file}")
            elif name and name.partition("[")[0] not in names_of_tests(file):
                gone.append(f"{fault.name}: {file} has no {name}")
    assert not gone, "\n".join(gone)
