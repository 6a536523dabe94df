"""The comparison that asserts and measures: what passes is kept, what fails is not, and nothing else is touched."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.structures import Targets
from conformance import (
    Case,
    compare,
    compare_detections,
    compare_equal,
    compare_gradients,
    compare_tensors,
    compare_terms,
    describe_inputs,
    measure,
    note_inputs,
    read_cases,
    write_cases,
)
from originals import name_project, require_original

TEST = "tests/test_any.py::test_any[one]"


def test_the_largest_difference_of_each_quantity_is_kept() -> None:
    with measure(TEST, "RT-DETR", "rtdetr") as case:
        for difference in (1e-9, 3e-8, 2e-9):
            compare("loss terms", difference, 1e-6)
        compare_tensors("outputs", torch.zeros(2), np.array([0.0, 1e-7], np.float32), limit=1e-6, name="boxes")
    assert case.to_json()["differences"] == [
        ["loss terms", "", "float64", "relative", 3e-8],
        ["outputs", "boxes", "float32", "absolute", 1e-7],
    ]
    assert (case.peer, case.project, case.stored) == ("authors' code", "lyuwenyu/RT-DETR 068dfde", True)


@pytest.mark.parametrize("difference", [2e-6, math.nan, math.inf])
def test_what_is_not_within_its_limit_fails_and_is_not_measured(difference: float) -> None:
    with measure(TEST, "RT-DETR", "rtdetr") as case:
        with pytest.raises(AssertionError, match="gradients"):
            compare("gradients", difference, 1e-6, of="head.weight")
        assert not case.differences
    compare("gradients", 0.0, 0.0)
    assert not case.differences


def test_tensors_of_other_shapes_are_not_broadcast() -> None:
    with pytest.raises(AssertionError, match=r"\(2, 3\), not \(1, 3\)"):
        compare_tensors("outputs", torch.zeros(2, 3), torch.zeros(1, 3), limit=1)
    compare_tensors("outputs", torch.zeros(0, 4), torch.zeros(0, 4), limit=0)


def test_each_element_has_a_limit_of_its_own() -> None:
    theirs = torch.tensor([1000.0, 1.0])
    compare_tensors("outputs", theirs + torch.tensor([9e-1, 1e-3]), theirs, limit=1e-3, relative=1e-3)
    with pytest.raises(AssertionError, match="an element differs by more"):
        compare_tensors("outputs", theirs + torch.tensor([0.0, 1e-2]), theirs, limit=1e-3, relative=1e-3)
    ours = {"weight": theirs + torch.tensor([0.0, 1e-2])}
    compare_gradients(ours, {"weight": theirs}, limit=1e-4)
    with pytest.raises(AssertionError, match="an element of weight"):
        compare_gradients(ours, {"weight": theirs}, limit=1e-4, elements=(1e-4, 1e-4))


def test_terms_are_relative_and_have_the_same_names() -> None:
    compare_terms({"l1": torch.tensor(100.0)}, {"l1": 100.1}, limit=1.1e-3)
    compare_terms({"l1": 0.0}, {"l1": 0.0}, limit=0)
    with pytest.raises(AssertionError, match="l1"):
        compare_terms({"l1": 100.0}, {"l1": 100.2}, limit=1.1e-3)
    with pytest.raises(AssertionError):
        compare_terms({"l1": 1.0}, {"l1": 1.0, "giou": 1.0}, limit=1)


def test_gradients_are_relative_to_their_norm_and_to_a_part_of_all() -> None:
    theirs = {"large": torch.tensor([3.0, 4.0]), "none": torch.zeros(2)}
    ours = {"large": torch.tensor([3.0, 4.0]), "none": torch.tensor([1e-9, 0.0])}
    with measure(TEST, "part", "torch") as case:
        compare_gradients(ours, theirs, limit=1e-6, floor=1e-3)
    (value,) = case.differences.values()
    assert value == pytest.approx(1e-9 / (1e-3 * 5), rel=1e-6)
    with pytest.raises(AssertionError, match="none"):
        compare_gradients(ours, theirs, limit=1e-6, floor=1e-5)
    with pytest.raises(AssertionError, match="none"):
        compare_gradients({**ours, "none": None}, theirs, limit=1)


def test_equal_is_equal() -> None:
    compare_equal("assignment", torch.tensor([1, 2]), [1, 2])
    for other in ([1, 3], [1], [2, 1]):
        with pytest.raises(AssertionError, match="assignment"):
            compare_equal("assignment", torch.tensor([1, 2]), other)


def test_detections_in_another_order_are_others() -> None:
    boxes, scores, labels = torch.tensor([[0.0, 0, 4, 4], [1, 1, 9, 9]]), torch.tensor([0.9, 0.8]), torch.tensor([1, 1])
    compare_detections((boxes, scores, labels), (boxes, scores, labels), scores=0, boxes=0)
    with pytest.raises(AssertionError, match="boxes"):
        compare_detections((boxes, scores, labels), (boxes.flip(0), scores, labels), scores=0, boxes=1)


def test_inputs_are_described_by_themselves() -> None:
    objects = [Targets(torch.zeros(n, dtype=torch.int64), torch.zeros(n, 4), (64, 96)) for n in (2, 0)]
    assert describe_inputs(torch.zeros(2, 3, 64, 96), targets=objects) == "2 × 64 × 96; objects: 2, 0"
    assert describe_inputs([torch.zeros(1, 5, 8, 6), torch.zeros(1, 5, 4, 3)]) == "1 × 8 × 6, 1 × 4 × 3"
    assert describe_inputs([torch.zeros(1, 5, s, s) for s in (8, 4, 2)]) == "1 × 8 × 8 to 1 × 2 × 2"
    with measure(TEST, "part", "torch") as case:
        for _ in range(2):
            note_inputs(torch.zeros(1, 3, 1, 1))
    assert case.inputs == ["1 × 1 × 1"]


def test_a_package_is_named_with_its_installed_version() -> None:
    assert name_project("torchvision") == (
        "torchvision",
        f"torchvision {pytest.importorskip('torchvision').__version__.partition('+')[0]}",
    )
    assert name_project("mmdet") == ("mmdetection", "open-mmlab/mmdetection 3.3.0")


def make_case(test: str, value: float) -> Case:
    """Make a case of one difference."""
    with measure(test, "part", "torch") as case:
        compare("outputs", value, 1)
    return case


def test_a_case_replaces_its_own_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert read_cases(path) == []
    write_cases(path, [make_case("b", 1e-3), make_case("a", 1e-3)])
    write_cases(path, [make_case("b", 1e-4)])
    assert [(row["test"], row["differences"][0][-1]) for row in read_cases(path)] == [("a", 1e-3), ("b", 1e-4)]
    write_cases(path, [], ["a"])
    assert [row["test"] for row in read_cases(path)] == ["b"]


RECORDED = """\
import pytest
from conformance import compare


@pytest.mark.conforms("part", "torch")
@pytest.mark.parametrize("value", VALUES)
def test_some(value):
    compare("outputs", value, 1e-3)


@pytest.mark.conforms("part", "torch")
def test_that_fails_later():
    compare("outputs", 1e-9, 1e-3)
    assert False


def test_that_is_not_marked():
    compare("outputs", 1e-9, 1e-3)
"""


def run_pytest(folder: Path, values: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run those tests with the plugin alone."""
    (folder / "test_recorded.py").write_text(RECORDED.replace("VALUES", values))
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "recorded_conformance", "-p", "no:cacheprovider", *options]
    environment = {"PATH": subprocess.os.environ["PATH"], "PYTHONPATH": f"{tests}:{tests.parent / 'src'}"}
    return subprocess.run([*command, "test_recorded.py"], cwd=folder, capture_output=True, text=True, env=environment)


def test_what_passes_is_written_and_what_fails_or_is_gone_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    run_pytest(tmp_path, "[1e-4, 1e-5, 1]", f"--record-conformance={path}")
    tests = ["test_recorded.py::test_some[0.0001]", "test_recorded.py::test_some[1e-05]"]
    assert [row["test"] for row in read_cases(path)] == tests
    done = run_pytest(tmp_path, "[1e-4, 1e-6]", f"--record-conformance={path}", "-k", "0.0001")
    assert "1 passed" in done.stdout
    assert [row["test"] for row in read_cases(path)] == tests[:1], "1e-05 is not there any more"
    before = json.loads(path.read_text())
    run_pytest(tmp_path, "[1e-6]")
    assert json.loads(path.read_text()) == before


def test_originals_are_at_their_commit(tmp_path: Path) -> None:
    for folder, text in ((None, "needs --originals DIR with lyuwenyu/RT-DETR 068dfde"), (tmp_path, "git clone")):
        with pytest.raises(pytest.skip.Exception, match=text):
            require_original(folder, "rtdetr")
    clone = tmp_path / "RT-DETR"
    clone.mkdir()
    with pytest.raises(ValueError, match="RT-DETR is no clone: git clone"):
        require_original(tmp_path, "rtdetr")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    subprocess.run(["git", *author, "commit", "-qm", "empty", "--allow-empty"], cwd=clone, check=True)
    with pytest.raises(ValueError, match="but numbers are of 068dfde: git checkout it"):
        require_original(tmp_path, "rtdetr")
