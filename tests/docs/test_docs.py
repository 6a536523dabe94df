"""Pages tell the truth: their commands and code run, and what they name exists."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import ELSEWHERE, ROOT, answer_of, blocks, commands, play, small_recipe, smaller

from boxwright.cli.info import measure
from boxwright.cli.main import COMMANDS, main
from boxwright.cli.recipe_arguments import BACKBONE_WEIGHTS
from boxwright.compose.detectors import build_resolved
from boxwright.compose.options import options_of
from boxwright.compose.parts import Folder, find_part, import_attribute, list_parts
from boxwright.compose.recipes import SECTIONS, SLOTS, list_recipes, resolve
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.structures import Category

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
ADD_A_NECK = ROOT / "docs" / "add-a-neck.md"


def by_name(page: Path) -> str:
    return page.name


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny drawn set in a folder that is called as the pages call it."""
    folder = tmp_path_factory.mktemp("drawn") / "DIR"
    draw_data_set(folder, train=4, val=3, image_size=64)
    return folder


@pytest.fixture
def folder(tmp_path: Path, data_set: Path) -> Path:
    """Where the reader of a page is: with a data set, images, and small recipes under the names of the real ones."""
    shutil.copytree(data_set, tmp_path / "DIR")
    images = sorted((data_set / "images").glob("val_*.jpg"))
    (tmp_path / "photos").mkdir()
    for name, image in zip(("photo.jpg", "photos/a.jpg", "photos/b.jpg"), images, strict=True):
        shutil.copy(image, tmp_path / name)
    for name in list_recipes():
        (tmp_path / f"{name}.yaml").write_text(small_recipe(name))
    return tmp_path


@pytest.mark.filterwarnings("ignore:an image holds")
@pytest.mark.parametrize("page", [page for page in PAGES if page != ADD_A_NECK], ids=by_name)
def test_what_a_page_says_works(page: Path, folder: Path) -> None:
    play(page, folder)


def test_adding_a_neck_works_as_its_page_says(folder: Path) -> None:
    """In a copy of the project, and in a process of its own that imports this copy."""
    for name in ("src", "tests/contracts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "tests/conftest.py",
        "tests/sparse_ids.py",
        "tests/random_weights.py",
        "tests/neighbors.py",
    ):
        shutil.copy(ROOT / name, folder / name)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("pages.py")), str(ADD_A_NECK), str(folder)],
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "src/boxwright/necks/squeeze_excite.py").is_file()
    assert not (ROOT / "src/boxwright/necks/squeeze_excite.py").exists()


@pytest.mark.slow
def test_commands_that_start_processes_work(folder: Path) -> None:
    found = [
        command
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for command in commands(block.text)
        if command.startswith(ELSEWHERE)
    ]
    assert found
    for command in found:
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
    """Rows of all tables whose first column is called ``column``: other cells by the first, without backticks."""
    text = page.read_text() + "\n\n"
    tables = re.findall(rf"^\| {column} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables, f"{page.name} has no table of {column}"
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for table in tables for line in table.splitlines()]
    return {first.strip("`| "): rest for first, *rest in cells}


def test_the_table_of_recipes_has_every_recipe_with_its_size() -> None:
    table = rows(ROOT / "README.md", "recipe")
    assert set(table) == set(list_recipes())
    for name, (params, _, size, *_) in table.items():
        recipe = resolve(name).recipe
        with torch.device("meta"):  # shapes without numbers: no detector is too large
            detector = build_resolved(recipe, categories=[Category(i, str(i)) for i in range(80)])
        side = recipe["input"]["image_size"]
        counted = sum(parameter.numel() for parameter in detector.parameters())
        assert (params, size) == (f"{counted:,}", f"{side} × {side}"), name


@pytest.mark.parametrize(
    "name", [name if "tiny" in name else pytest.param(name, marks=pytest.mark.slow) for name in list_recipes()]
)
def test_the_table_of_recipes_has_every_cost(name: str) -> None:
    facts = measure(resolve(name).recipe, num_classes=80)
    assert rows(ROOT / "README.md", "recipe")[name][1] == f"{facts['gmac']:.3f}"


def example_options() -> set[str]:
    """Options of the neck that the page on adding parts adds."""
    code = next(block.text for block in blocks(ADD_A_NECK) if block.language == "python")
    constructor = next(
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    return {argument.arg for argument in constructor.args.kwonlyargs}


def slot_options(folder: Folder) -> set[str]:
    return {option for name in list_parts(folder) for option in options_of(find_part(folder, name))}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_options_that_are_named_exist(page: Path) -> None:
    known = {slot: slot_options(folder) for slot, folder in SLOTS.items()}
    known |= {section: set(options_of(import_attribute(target))) for section, target in SECTIONS.items()}
    known["neck"] |= example_options()
    known["backbone"].add(BACKBONE_WEIGHTS.partition(".")[2])
    all_blocks = blocks(page)
    text = page.read_text()
    for index, block in enumerate(all_blocks):
        if "boxwright: error:" in (answer_of(index, all_blocks) or ""):
            text = text.replace(block.text, "")
    for section, option in re.findall(r"--([a-z]+)(?:\.\d+)?\.([a-z][a-z_-]*)", text):
        assert option.replace("-", "_") in known[section], f"{page.name}: --{section}.{option}"


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
    for name in re.findall(r"`((?:tests|benchmarks|docs)/[\w/]+\.\w+)", page.read_text()):
        assert (ROOT / name).is_file() or "squeeze_excite" in name, f"{page.name}: {name}"


def test_tests_that_prove_something_exist() -> None:
    page = (ROOT / "docs" / "proven.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"docs/proven.md: {file}::{test}"


def test_everything_that_is_said_to_hold_names_its_test() -> None:
    for what, cells in rows(ROOT / "docs" / "proven.md", "what holds").items():
        assert "`tests/" in cells[-1], f"docs/proven.md: no test for: {what}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    assert not re.findall(r"@@|\bTODO\b|\bTBD\b|\bXXX\b", page.read_text())
