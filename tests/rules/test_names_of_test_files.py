"""Names of test files: pytest imports them by name alone, and one name stands for one file."""

from __future__ import annotations

from collections import Counter

from source_files import python_files


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in python_files("tests") if path.name not in ("conftest.py", "__init__.py"))
    assert [name for name, count in names.items() if count > 1] == []
