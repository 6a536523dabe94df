"""Numbers that papers have for the variations of a study: read with it, and shown in a column of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.workflows.study import page_of
from boxwright.workflows.study_file import read_study
from boxwright.workflows.study_results import Difference, StudyResult, VariationResult

TEXT = """# How many layers.
base: rtdetr_tiny
variations:
  one: {head.decoder.num_layers: 1}
  two: {head.decoder.num_layers: 2}
"""
PUBLISHED = "published: {source: 'A paper, table 1', AP: {two: 40, one: 38.5}}\n"


def write(folder: Path, added: str) -> Path:
    path = folder / "layers.yaml"
    path.write_text(TEXT + added)
    return path


def results(path: Path) -> StudyResult:
    study = read_study(path)
    variations = tuple(
        VariationResult(
            name=name,
            numbers={0: {"AP": value}},
            curves={},
            seconds={0: 1.0},
            difference=None if name == "one" else Difference(0.1, None, None),
            params=7,
            gmac=0.5,
        )
        for name, value in (("one", 0.2), ("two", 0.3))
    )
    return StudyResult(study=study, folder=path.parent, variations=variations, measure="AP")


def test_published_numbers_stand_in_a_column_of_their_own(tmp_path: Path) -> None:
    result = results(write(tmp_path, PUBLISHED))
    lines = result.to_markdown().splitlines()
    assert lines[0].endswith("| latency | AP, published |")
    assert [line.split("|")[2].strip() for line in lines[2:4]] == ["0.200", "0.300"]
    assert [line.split("|")[-2].strip() for line in lines[2:4]] == ["38.5", "40"]
    assert lines[-1] == "Published: A paper, table 1."
    assert result.to_json()["published"] == {
        "source": "A paper, table 1",
        "measure": "AP",
        "values": {"two": 40, "one": 38.5},
    }
    page = page_of(result)
    assert page.columns[-1] == "AP, published"
    assert [row.cells[-1] for row in page.rows] == [("38.5", 38.5), ("40", 40)]
    assert page.facts["published"] == "A paper, table 1"
    assert all(len(row.cells) == len(page.columns) for row in page.rows)


def test_without_there_is_no_column_and_a_variation_may_have_none(tmp_path: Path) -> None:
    plain = results(write(tmp_path, ""))
    assert "ublished" not in plain.to_markdown()
    assert plain.to_json()["published"] is None
    assert page_of(plain).columns[-1] == "ms"
    some = results(write(tmp_path, "published: {source: x, AP: {two: 40}}\n"))
    assert page_of(some).rows[0].cells[-1] == ("", None)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("published: 3\n", r"published has a source and one measure: .* not 3"),
        ("published: {AP: {one: 3}}\n", "published has a source and one measure"),
        ("published: {source: x}\n", "published has a source and one measure"),
        ("published: {source: x, AP: {three: 3}}\n", "published: unknown variation 'three'"),
        ("published: {source: x, AP: {two: much}}\n", "published: two is a number, not 'much'"),
    ],
)
def test_what_is_refused(added: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_study(write(tmp_path, added))
    assert "\n" not in str(caught.value)
