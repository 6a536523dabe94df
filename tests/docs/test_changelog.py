"""The change log: newest first, of the version that this is, with everything that was renamed."""

from __future__ import annotations

import re
import tomllib

from pages import ROOT, load_generator

import boxwright

tables = load_generator()
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_versions_are_in_order_and_the_first_is_this_one() -> None:
    versions = re.findall(r"^## (\d+)\.(\d+)\.(\d+)$", TEXT, re.MULTILINE)
    assert versions == sorted(versions, key=lambda version: tuple(map(int, version)), reverse=True)
    newest = ".".join(versions[0])
    assert newest == boxwright.__version__
    assert newest == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {newest}\n" in (ROOT / "CITATION.cff").read_text()


def test_sections_have_the_names_that_are_known() -> None:
    sections = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Renamed options"}


def test_every_renamed_option_is_named() -> None:
    assert tables.read_table("renames") == tables.renames(), tables.COMMAND
