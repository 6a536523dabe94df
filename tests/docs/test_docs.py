"""Pages are right: their commands and code run, and what they name exists."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import ADDING, ELSEWHERE, ROOT, answer_of, blocks, commands, play, smaller

from boxwright.cli.main import COMMANDS, main
from boxwright.cli.recipe_arguments import BACKBONE_WEIGHTS
from boxwright.compose.options import leaves, options_of
from boxwright.compose.parts import Folder, find_part, list_parts
from boxwright.compose.recipe import SECTIONS
from boxwright.compose.recipe_text import SLOTS
from boxwright.compose.recipes import list_recipes, resolve
from boxwright.workflows.info import measure_recipe

PAGES = sorted([*ROOT.glob("[A-Z]*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "runtime" / "README.md"])


LONG_PAGES = {"combinations.md", "export.md", "pyramids.md", "studies.md"}
"""Pages whose commands take longest; what they show is tested in its own files too."""


def by_name(page: Path) -> str:
    return page.name


def slow_where_long(page: Path) -> Any:
    return pytest.param(page, marks=pytest.mark.slow) if page.name in LONG_PAGES else page


@pytest.mark.filterwarnings("ignore:an image holds")
@pytest.mark.parametrize("page", [slow_where_long(page) for page in PAGES if page not in ADDING], ids=by_name)
def test_what_a_page_says_works(page: Path, folder: Path) -> None:
    play(page, folder)


@pytest.mark.slow
def test_commands_that_start_processes_work(folder: Path) -> None:
    listed = [
        command
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for command in commands(block.text)
        if command.startswith(ELSEWHERE)
    ]
    assert listed
    for command in listed:
        command = re.sub(r"boxwright train (rtdetr_\w+)", r"boxwright train \1.yaml", smaller(command))
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name}: {link}"


def rows(page: Path, column: str) -> dict[str, list[str]]:
    """Read all tables whose first column is ``column``: the other cells by the first, without backticks."""
    text = page.read_text() + "\n\n"
    tables = re.findall(rf"^\| {column} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables, f"{page.name} has no table of {column}"
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for table in tables for line in table.splitlines()]
    return {first.strip("`| "): rest for first, *rest in cells}


def test_the_table_of_recipes_has_every_recipe_with_its_size() -> None:
    table = rows(ROOT / "README.md", "recipe")
    assert set(table) == set(list_recipes())
    for name, (params, _, size, *_) in table.items():
        side = resolve(name).recipe.input.image_size
        golden = (ROOT / "tests" / "golden" / f"{name}.txt").read_text()  # which test_recipes_golden.py compares
        assert (f"{params} parameters", size) == (golden.splitlines()[0], f"{side} × {side}"), name


@pytest.mark.parametrize(
    "name", [name if "tiny" in name else pytest.param(name, marks=pytest.mark.slow) for name in list_recipes()]
)
def test_the_table_of_recipes_has_every_cost(name: str) -> None:
    facts = measure_recipe(resolve(name).recipe, num_classes=80)
    assert rows(ROOT / "README.md", "recipe")[name][1] == f"{facts.gmac:.3f}"


def example_options() -> set[str]:
    """List the options, and their groups, of the parts that the pages on adding parts add."""
    code = [block.text for page in ADDING for block in blocks(page) if block.language == "python"]
    constructors = [
        node for text in code for node in ast.walk(ast.parse(text)) if getattr(node, "name", "") == "__init__"
    ]
    return {argument.arg for node in constructors for argument in node.args.kwonlyargs}


def slot_options(folder: Folder) -> set[str]:
    """List the options of all parts of a folder by dotted name."""
    return {option for name in list_parts(folder) for option, _ in leaves(options_of(find_part(folder, name)))}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_options_that_are_named_exist(page: Path) -> None:
    known = {slot: slot_options(folder) for slot, folder in SLOTS.items()}
    known |= {section: {option for option, _ in leaves(options_of(target))} for section, target in SECTIONS.items()}
    known["backbone"].add(BACKBONE_WEIGHTS.partition(".")[2])
    known["pseudo"] = {"weight"}  # of the command, not of a recipe
    all_blocks = blocks(page)
    text = page.read_text()
    for index, block in enumerate(all_blocks):
        if "boxwright: error:" in (answer_of(index, all_blocks) or ""):
            text = text.replace(block.text, "")
    for section, dashed in re.findall(r"--([a-z]+)(?:\.\d+)?\.([a-z][a-z0-9_.-]*[a-z0-9])", text):
        option = dashed.replace("-", "_")
        added = option.partition(".")[0] in example_options()
        assert option in known[section] or added, f"{page.name}: --{section}.{option}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_on_the_command_line_has_every_option(command: str) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([command, "--help"])
    parts = {f"--{slot}" for slot in SLOTS} | {f"--{section}" for section in SECTIONS}
    option = r"(?<![\w-])--[a-z][a-z-]*"
    has = set(re.findall(option, output.getvalue())) - parts - {"--help"}
    page = (ROOT / "docs" / "command-line.md").read_text()
    section = re.search(rf"^## boxwright {command}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section
    table = "\n".join(line for line in section[1].splitlines() if line.startswith("| `"))
    assert set(re.findall(option, table.replace("--input.image_size", ""))) - parts == has
    assert (f"`{BACKBONE_WEIGHTS} " in table) == (f"{BACKBONE_WEIGHTS} " in output.getvalue())


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "|".join(p.name for p in (ROOT / "src" / "boxwright").iterdir() if p.is_dir())
    for name in re.findall(rf"`((?:{folders})/[\w/]+\.\w+)`", page.read_text()):
        assert (ROOT / "src" / "boxwright" / name).is_file(), f"{page.name}: {name}"
    for name in re.findall(r"`(boxwright_runtime/[\w/]+\.\w+)`", page.read_text()):
        assert (ROOT / "src" / name).is_file(), f"{page.name}: {name}"
    for name in re.findall(r"`((?:tests|benchmarks|docs)/[\w/]+\.\w+)", page.read_text()):
        assert (ROOT / name).is_file() or page in ADDING, f"{page.name}: {name}"


def test_tests_that_prove_something_exist() -> None:
    page = (ROOT / "docs" / "proven.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"docs/proven.md: {file}::{test}"


def test_everything_that_holds_names_its_test() -> None:
    for what, cells in rows(ROOT / "docs" / "proven.md", "what holds").items():
        assert "`tests/" in cells[-1], f"docs/proven.md: no test for: {what}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    assert not re.findall(r"@@|\bTODO\b|\bTBD\b|\bXXX\b", page.read_text())
