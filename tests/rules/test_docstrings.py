"""First lines of docstrings: a noun phrase or an imperative, never a clause."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from source_files import documented_nodes_of, parse, python_files, relative

CLAUSE = re.compile(
    r"(?:(?:What|Which|Who|When|Where)(?:ever)?|Whether|How(?:ever)?|Whose|Whom|Why|That (?:what|which|who))\b"
)


@cache
def strings_below_assignments() -> list[tuple[str, str]]:
    """Texts that document a constant: strings that stand alone, by file and line."""
    texts = []
    for path in python_files("src", "tests", "benchmarks"):
        for node in ast.walk(parse(path)):
            match node:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    texts.append((f"{relative(path)}:{node.lineno}", text))
    return texts


def test_no_docstring_begins_with_a_clause() -> None:
    offences = [f"{place}: {text.splitlines()[0]}" for place, text in strings_below_assignments() if CLAUSE.match(text)]
    assert not offences, "docstrings begin with a noun phrase or an imperative verb:\n" + "\n".join(offences)


def test_no_documented_name_is_missed() -> None:
    """Every docstring of the package is among the strings that the rule above looks at."""
    texts = {place for place, _ in strings_below_assignments()}
    assert len(texts) >= sum(len(list(documented_nodes_of(path))) for path in python_files("src"))


@pytest.mark.parametrize("line", ["What it is.", "Whatever it is.", "That what is there stays."])
def test_clauses(line: str) -> None:
    assert CLAUSE.match(line)


@pytest.mark.parametrize("line", ["Whole images.", "That one option.", "Howling."])
def test_no_clauses(line: str) -> None:
    assert not CLAUSE.match(line)
