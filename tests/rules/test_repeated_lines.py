"""Heads differ from each other: none repeats more than a few lines of another one."""

from __future__ import annotations

import ast
import io
import keyword
import token
import tokenize
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from source_files import Documented, Function, parse, python_files, relative

MOST_LINES = 15


def skipped_lines(path: Path) -> set[int]:
    """Lines of imports, docstrings and signatures, which heads have in common by their contract."""
    skipped: set[int] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, Documented) and ast.get_docstring(node) is not None:
            text = node.body[0]
            skipped.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        if isinstance(node, Function):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            skipped.update(range(first, max(node.body[0].lineno, node.lineno + 1)))
    return skipped


def statements(path: Path) -> list[tuple[int, str]]:
    """Line number and text of each line of code, with all names and literals made equal."""
    skipped = skipped_lines(path)
    lines: dict[int, list[str]] = defaultdict(list)
    for part in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        line = part.start[0]
        if line in skipped or part.type in (token.COMMENT, token.NL, token.NEWLINE, token.INDENT, token.DEDENT):
            continue
        if part.type in (token.NUMBER, token.STRING) or (
            part.type == token.NAME and not keyword.iskeyword(part.string)
        ):
            lines[line].append("name")
        elif part.string.strip():
            lines[line].append(part.string)
    return [(line, " ".join(parts)) for line, parts in sorted(lines.items())]


def longest_common_run(one: Path, two: Path) -> tuple[int, int, int]:
    """Length of the longest run of equal lines, and the lines where it ends in either file."""
    ours, theirs = statements(one), statements(two)
    longest, before = (0, 0, 0), [0] * (len(theirs) + 1)
    for line, text in ours:
        lengths = [0] * (len(theirs) + 1)
        for index, (other_line, other_text) in enumerate(theirs):
            if text == other_text:
                lengths[index + 1] = before[index] + 1
                longest = max(longest, (lengths[index + 1], line, other_line))
        before = lengths
    return longest


@pytest.mark.parametrize("folder", ["heads", "necks", "backbones"])
def test_no_two_parts_share_a_long_run_of_lines(folder: str) -> None:
    offences = []
    for one, two in combinations(python_files(f"src/boxwright/{folder}"), 2):
        length, line, other_line = longest_common_run(one, two)
        if length > MOST_LINES:
            offences.append(f"{length} lines until {relative(one)}:{line} and {relative(two)}:{other_line}")
    assert not offences, "equal but for names; move them to the home of the family:\n" + "\n".join(offences)


def test_names_and_literals_do_not_count(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text('import a\n\n\ndef f(x):\n    """Text."""\n    y = x + 1\n\n    return g(y)\n')
    two.write_text("class A:\n    def h(self, z, w):\n        # A comment.\n        v = w + 2.5\n        return k(v)\n")
    assert longest_common_run(one, two) == (2, 8, 5)
