"""Dispatch, and what goes wrong in one line."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from boxwright import __version__
from boxwright.cli import main as cli
from boxwright.cli.main import COMMANDS, main


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(_argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "import_attribute", lambda _target: run)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name}" in printed
        assert summary in printed


def test_every_command_has_its_file() -> None:
    for name in COMMANDS:
        path = Path(cli.__file__).parent / f"{name.replace('-', '_')}.py"
        assert re.search(r"^def run\(argv: (list|Sequence)\[str\]\) -> int:$", path.read_text(), re.MULTILINE), path


def test_without_a_command_the_help_comes_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: boxwright COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"boxwright {__version__}\n"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project.get("version", __version__) == __version__


def test_a_misspelled_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("boxwright: error: unknown command 'trian'; did you mean 'train'? commands: demo, ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b"), "a b"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), "x.json: No such file or directory"),
        (FileNotFoundError("no folder x"), "no folder x"),
        (ImportError("install boxwright[report]"), "install boxwright[report]"),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_are_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    fail_with(monkeypatch, error)
    assert main(["info"]) == 2
    assert capsys.readouterr() == ("", f"boxwright: error: {line}\n")


def test_a_switch_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ValueError("deep down"))
    monkeypatch.setenv("BOXWRIGHT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="deep down"):
        main(["info"])


def test_faults_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        main(["info"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "boxwright: interrupted\n"


def test_the_installed_command() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "boxwright", *arguments], capture_output=True, text=True)

    assert run("--version").stdout == f"boxwright {__version__}\n"
    done = run("list", "nekcs")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough() -> None:
    command = f"{sys.executable} -m boxwright list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


HEAVY = ("torch", "numpy", "PIL", "rich", "boxwright.detector")
"""Modules that take seconds to import, and are not needed to read a command line."""


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "list",
        *(f"{command} --help" for command in COMMANDS),
        *(f"{command} --hlep" for command in COMMANDS if command not in ("train", "info")),
        "comand",
        "train rtdetr_r18 --dta d",
        "train rtdetr_r18 --nek fpn",
        "train rtdetr_r18 extra",
        "train rtdetr_r18 --neck",
        "train rtdetr_r81",
        "train --data d",
        "info rtdetr_r18 --jsn",
        "predict m.pt image.jpg --threshold high",
        "eval m.pt",
        "train rtdetr_r18",
        "train rtdetr_r18 --data d --neck fpnn",
        "train rtdetr_r18 --data d --image-size abc",
        "train rtdetr_r18 --data d --image-size 100",
        "train rtdetr_r18 --data d --train.lrr 1",
        "train rtdetr_r18 --budjet 3m",
        "train rtdetr_r18 --data d --head.num_layer 3",
        "train rtdetr_r18 --data d --neck.num_heads many",
        "train faster_rcnn_r50_fpn --data d --head.rpn.num_conv 2",
        "train rtdetr_r18 --help",
        "train retinanet_r50_fpn --neck bifpn,fpn --neck.1.out_channels 64 --help",
        "info botnet_t3 --help",
        "train rtdetr_r18 --data d --augment.flipp 1",
        "train rtdetr_r18 --data d --augment.flip abc",
        "train rtdetr_r18 --data nowhere",
        "train rtdetr_r18 --data . --weights nowhere.pt",
        "train rtdetr_r18 --data . --backbone.weights nowhere.pt",
        "info rtdetr_r18 --num-classes 0",
        "info nowhere.pt",
        "eval nowhere.pt --data .",
        "predict nowhere.pt image.jpg",
        "export nowhere.pt",
        "explain nowhere.pt image.jpg",
        "bench nowhere.pt",
        "check nowhere",
        "study nothing",
        "study nothing.yaml --train.steps 2",
        "check d --recipe rtdetr_r99",
        "info rtdetr_r18 --head rtdtr",
    ],
)
def test_command_lines_are_read_without_torch(line: str) -> None:
    status, imported = run_and_list_imports(line.split(), HEAVY)
    assert (status, imported) == (0 if "help" in line or line == "list" else 2, [])


@pytest.mark.parametrize("line", ["info rtdetr_r18", "info mask-rcnn-r50-fpn --num-classes 80 --json -"])
def test_costs_of_recipes_are_stored(line: str) -> None:
    """With other options they are computed: see ``test_info.py``."""
    assert run_and_list_imports(line.split(), ("torch", "numpy", "PIL")) == (0, [])


def test_names_of_the_package_are_imported_on_demand() -> None:
    code = f"import sys, boxwright; print(len(dir(boxwright)) > 9, sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


@pytest.mark.parametrize("recipe", ["rtdetr_tiny", "fcos_r50_fpn", "faster_rcnn_r18_fpn"])
def test_a_model_is_loaded_without_what_it_does_not_need(recipe: str) -> None:
    code = f"import sys, boxwright; boxwright.load, boxwright.build; boxwright.build({recipe!r}, num_classes=2); "
    code += "print(sorted({'torchvision', 'timm', 'transformers', 'triton', 'torch._dynamo'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_measuring_and_predicting_import_neither_torchvision_nor_the_compiler() -> None:
    names = ("info", "evaluate", "predict")
    code = f"import sys, {', '.join(f'boxwright.workflows.{name}' for name in names)}; "
    code += "print(sorted({'torchvision', 'timm', 'transformers', 'torch._dynamo'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_costs_are_counted_without_the_compiler() -> None:
    line = "info rtdetr_tiny --head.num_queries 20 --image-size 64"
    assert run_and_list_imports(line.split(), ("torch._dynamo", "sympy", "torchvision")) == (0, [])


def run_and_list_imports(arguments: Sequence[str], modules: Sequence[str]) -> tuple[int, list[str]]:
    """Run a command in a process of its own; return its status, and which of these modules it imported."""
    code = (
        "import sys; from boxwright.cli.main import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        f"print(); print(status, *sorted(set({tuple(modules)}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    status, *imported = done.stdout.splitlines()[-1].split()
    return int(status), imported
