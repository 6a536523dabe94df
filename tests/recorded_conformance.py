"""Plugin of pytest: ``--record-conformance FILE`` keeps what tests marked ``conforms`` measured, if they passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import Case, measure, read_cases, write_cases

CASES = pytest.StashKey[list[Case]]()
PASSED = pytest.StashKey[bool]()
DESELECTED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("conformance")
    group.addoption("--record-conformance", metavar="FILE", type=Path, help="keep what parity tests measure in FILE")
    group.addoption("--originals", metavar="DIR", type=Path, help="folder with clones of the authors' repositories")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse to record in several processes, none of which has all."""
    config.addinivalue_line("markers", "conforms(part, project, live=False): measures a part against a project")
    if config.getoption("--record-conformance") and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--record-conformance needs one process: leave out -n")


@pytest.fixture
def originals(request: pytest.FixtureRequest) -> Path | None:
    """The folder of ``--originals``; None where it was not given."""
    folder: Path | None = request.config.getoption("--originals")
    return folder


@pytest.fixture(autouse=True)
def measured_comparisons(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what a marked test compares."""
    mark = request.node.get_closest_marker("conforms")
    if mark is None:
        yield
        return
    with measure(request.node.nodeid, *mark.args, **mark.kwargs) as case:
        request.node.stash.setdefault(CASES, []).append(case)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember which tests passed."""
    report: Any = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember tests that are there, and were left out."""
    for item in items:
        item.config.stash.setdefault(DESELECTED, []).append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what passed; drop parameters of the tests that ran whole and that are not there any more."""
    path: Path | None = session.config.getoption("--record-conformance")
    if path is None:
        return
    passed = [item for item in session.items if item.stash.get(PASSED, False)]
    cases = [case for item in passed for case in item.stash.get(CASES, []) if case.differences]
    whole = not any("[" in argument for argument in session.config.args)
    known = {*(item.nodeid for item in session.items), *session.config.stash.get(DESELECTED, [])}
    functions = {name.partition("[")[0] for name in known}
    dropped = [
        row["test"]
        for row in read_cases(path)
        if whole and row["test"].partition("[")[0] in functions and row["test"] not in known
    ]
    write_cases(path, cases, dropped)
