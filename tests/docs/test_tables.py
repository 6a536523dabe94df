"""Tables of parts are what ``make tables`` writes; a part that is new may not be in them yet."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
from pages import load_generator

from boxwright.cli.list import combination_table
from boxwright.compose.parts import FOLDERS, list_parts
from boxwright.workflows.study_file import list_studies, read_study

tables = load_generator()


def compare(page: str, ours: dict[str, object], theirs: dict[str, object]) -> None:
    """Every row of a page is true; one that is missing is a warning, so that a new part needs no change of a page.

    Args:
        page: where the table stands.
        ours: what stands there.
        theirs: what ``make tables`` would write.
    """
    wrong = [name for name, row in ours.items() if theirs.get(name) != row]
    assert not wrong, f"{page} is not what the code says of {', '.join(wrong)}: {tables.COMMAND}"
    if missing := [name for name in theirs if name not in ours]:
        warnings.warn(f"{page} does not have {', '.join(missing)} yet: {tables.COMMAND}", stacklevel=2)


def parts_by_name(table: str) -> dict[str, object]:
    return {line.split("`")[1]: line for line in table.splitlines() if "`" in line}


def cells_by_parts(lines: list[str]) -> dict[str, object]:
    """Read whether three parts fit together, by their names."""
    header, *rows = [line.split(maxsplit=2) for line in lines if not line.startswith(("`", "("))]
    heads = header[2].split()
    return {
        f"{backbone} + {neck} + {head}": cell.strip()
        for backbone, neck, cells in rows
        for head, cell in zip(heads, re.findall(r"yes|no \(\d+\)", cells), strict=True)
    }


def test_the_table_of_parts_is_true() -> None:
    compare("README.md", parts_by_name(tables.read_table("parts")), parts_by_name(tables.parts_table()))


def test_the_table_of_parts_would_have_every_part() -> None:
    assert len(parts_by_name(tables.parts_table())) == sum(len(list_parts(folder)) for folder in FOLDERS)


def test_the_table_of_combinations_is_true() -> None:
    page = tables.read_table("combinations").splitlines()
    compare("docs/combinations.md", cells_by_parts(page), cells_by_parts(combination_table()))


def test_the_table_of_findings_is_that_of_the_code() -> None:
    """All kinds, those of the parts that need a recipe or a model, too, and no other."""
    page, code = tables.read_table("findings").splitlines(), tables.finding_kinds().splitlines()
    assert page == code, f"docs/check.md is not what the code says: {tables.COMMAND}"
    assert len(page) > 100


def test_the_table_of_sources_is_true() -> None:
    compare("docs/weights.md", parts_by_name(tables.read_table("sources")), parts_by_name(tables.sources()))


def test_the_table_of_comparisons_is_what_was_recorded() -> None:
    assert tables.read_table("comparisons") == tables.comparisons(), tables.COMMAND


def test_cells_of_a_comparison() -> None:
    row = {"source": "detr", "variant": "r50", "size": "released", "project": "project 1.0", "note": "a note"}
    row |= {"images": [[250, 310], [150, 420]], "limited": [1], "input": "96 to 144"}
    row |= {"differences": {"scores": 0.00012, "boxes": 0.0}, "test": "tests/weights/test_any.py::test_any"}
    cells = ("`detr`", "r50 (released size)", "project 1.0; a note", "250 × 310, **150 × 420**", "96 to 144")
    assert tables.comparison_cells(row) == (*cells, "scores 1.2e-4, boxes equal", "`test_any.py::test_any`")


def test_a_new_part_is_a_warning_and_a_lost_one_is_refused() -> None:
    with pytest.warns(UserWarning, match=r"README\.md does not have fpn2 yet: make tables"):
        compare("README.md", {"fpn": "row"}, {"fpn": "row", "fpn2": "row"})
    with pytest.raises(AssertionError, match="of fpn2: make tables"):
        compare("README.md", {"fpn": "row", "fpn2": "row"}, {"fpn": "row"})
    with pytest.raises(AssertionError, match="of fpn: make tables"):
        compare("README.md", {"fpn": "row"}, {"fpn": "another row"})


def test_the_generator_writes_between_its_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("before\n<!-- parts: any -->\nold\n<!-- end of parts -->\nafter\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setitem(tables.TABLES, "parts", ("README.md", lambda: r"new \1"))
    assert tables.write_table("parts")
    text = (tmp_path / "README.md").read_text()
    assert text == "before\n<!-- parts: any -->\nnew \\1\n<!-- end of parts -->\nafter\n"
    assert not tables.write_table("parts")
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(ValueError, match=r"README\.md has no comments '<!-- parts"):
        tables.write_table("parts")


def test_papers_are_read_from_the_source_of_a_part() -> None:
    assert tables.paper_of("necks", "fpn") == "Lin et al., Feature Pyramid Networks, CVPR 2017"
    assert tables.paper_of("backbones", "timm") == "Wightman, PyTorch Image Models"
    assert tables.paper_of("necks", "identity") == ""


def test_the_table_of_studies_has_every_study() -> None:
    """Each with a question and the paper that asked it."""
    assert tables.read_table("studies") == tables.studies(), tables.COMMAND
    listed = [line.strip("| ").split(" | ") for line in tables.studies().splitlines()[2:]]
    assert [name.strip("`") for name, *_ in listed] == list_studies()
    assert all(question and paper for _, question, paper in listed)


@pytest.mark.parametrize("path", sorted((tables.ROOT / "docs" / "studies").glob("*.json")), ids=lambda path: path.stem)
def test_tables_of_studies_are_what_the_studies_wrote(path: Path) -> None:
    assert tables.read_table(path.stem) == tables.study_table(path.stem)
    study = json.loads(path.read_text())
    known = read_study(study["study"])
    assert [row["name"] for row in study["variations"]] == list(known.variations)
    assert all(row["options"] == known.variations[row["name"]] for row in study["variations"])
