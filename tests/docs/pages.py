"""Play the reader of a page: type its commands, run its Python, compare the answers that it shows.

A fenced block is run in the order of the page, in a folder of its own:

- ``bash``: line by line. Commands are made small by ``SMALLER``, so that a page takes seconds, unless their answer is
  shown: those run as they stand.
- ``text`` right after ``bash``: each of its lines was printed, where ``...`` stands for anything. Where one says
  "boxwright: error:", every command of that block ends with status 2; all others end with status 0.
- ``python``: in one namespace for the whole page. A block that begins with ``# some/file.py`` is that file.
- ``boxwright serve`` serves until the page ends, at a free port that takes the position of 8000 in all that follows.
- ``yaml``: is resolved as a recipe, or as a study where it has variations.

``python tests/docs/pages.py PAGE FOLDER`` does it in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
ADDING = sorted((ROOT / "docs").glob("add-a-*.md"))
"""Pages that add a part, which needs a copy of the repository."""

SMALLER = {
    # The recipes of the same name that stand in the reader's folder: a few thousand parameters, two steps.
    r"^boxwright (train|info) ((?:rtdetr|mask_rcnn|faster_rcnn|resnet18)_\w+)": r"boxwright \1 \2.yaml",
    r"--train\.(budget|epochs|steps) \S+": "--train.steps 2",
    r"--image-size \d+": "--image-size 64",
    # Two levels beyond c5 would be one cell wide, where torch's bfloat16 has wrong gradients on some CPUs.
    r"^(boxwright train retinanet_(?!.*extra_levels).*--image-size) 64": r"\1 192",
    # Each candidate of a benchmark is a process, which takes seconds to start.
    r" (--batch-size|--precision) (\w+),\S+": r" \1 \2",
    r"^boxwright bench (?!.*--runtime)": "boxwright bench --runtime folded --rounds 1 ",
    r"--rounds \d+": "--rounds 1",
    r"^boxwright study \w+ (?!--data)": "boxwright study query_selection --data DIR --train.steps 2 --image-size 64 ",
    r"--num-masks \d+": "--num-masks 4",
    r"(--head.supervision.distillation).teacher \S+": r"\1.teacher test_vit \1.channels 64",
    r"^boxwright study ": "boxwright study --seeds 0 --no-latency --train.batch_size 2 ",
    r"--train\.batch_size \d+ (--train\.batches\.accumulate_steps) \d+": r"--train.batch_size 4 \1 2",
}

SMALL_RECIPE = """\
backbone: {name: resnet_vd, depth: 18, width: 8}
neck:     {name: hybrid_encoder, hidden_dim: 16, num_heads: 2, feedforward_dim: 16, num_blocks: 1}
head:     {name: rtdetr, hidden_dim: 16, num_queries: 20, decoder: {num_heads: 2, feedforward_dim: 16, num_layers: 1}}
input:    {image_size: 64}
train:    {steps: 2, batch_size: 2, schedule: {evaluations: 1}, batches: {multi_scale: 0}}
"""

SMALL_MASK_RECIPE = """\
backbone: {name: resnet_vd, depth: 18, width: 8}
neck:     {name: fpn, out_channels: 16}
head:
  name: mask_rcnn
  rpn: {post_nms_top_k: [40, 20]}
  roi: {num_samples: 16}
  boxes: {hidden_dim: 16}
  mask: {hidden_dim: 8}
  detection: {score_threshold: 0}
input:    {image_size: 64}
train:    {steps: 2, batch_size: 2, schedule: {evaluations: 1}, batches: {multi_scale: 0}}
"""
"""The same with masks."""

SMALL_CLASSIFIER_RECIPE = """\
backbone: {name: resnet, depth: 18, width: 8, levels: [c5]}
neck:     identity
head:     {name: classifier}
input:    {image_size: 32, resize: center_crop}
augment:  {zoom_out: 0, iou_crop: 0}
train:    {steps: 2, batch_size: 2, schedule: {evaluations: 1}, batches: {multi_scale: 0}}
"""

SMALL_REGION_RECIPE = (
    SMALL_MASK_RECIPE.replace("resnet_vd", "resnet")
    .replace("mask_rcnn", "faster_rcnn")
    .replace("  mask: {hidden_dim: 8}\n", "")
)


def small_recipe(name: str) -> str:
    """Make the recipe that stands in the reader's folder under this name."""
    if name.endswith("_classifier"):
        return SMALL_CLASSIFIER_RECIPE
    return {"mask": SMALL_MASK_RECIPE, "faster": SMALL_REGION_RECIPE}.get(name.partition("_")[0], SMALL_RECIPE)


NOT_TYPED = ("source .venv/bin/activate",)
"""Commands that change the reader's shell only."""

ELSEWHERE = ("torchrun ",)
"""Commands that start other processes; the slow tests run them."""


class Block(NamedTuple):
    """A fenced block; ``line`` is where its text begins, ``answers`` the block that it follows at once."""

    language: str
    text: str
    line: int
    answers: int | None


def blocks(page: Path) -> list[Block]:
    """List the fenced blocks of a page, in order."""
    listed: list[Block] = []
    text = page.read_text(encoding="utf-8")
    end_of_last = None
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        follows = end_of_last is not None and not text[end_of_last : match.start()].strip()
        line = text.count("\n", 0, match.start(2)) + 1
        listed.append(Block(match[1], match[2], line, len(listed) - 1 if follows else None))
        end_of_last = match.end()
    return listed


def answer_of(index: int, all_blocks: list[Block]) -> str | None:
    """Find the text block that shows the output of the commands of block ``index``, if there is one."""
    return next((b.text for b in all_blocks if b.language == "text" and b.answers == index), None)


def commands(text: str) -> list[str]:
    """List the commands of a bash block."""
    lines = re.sub(r"\\\n *", "", text).splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def smaller(command: str) -> str:
    """Make the same command with less to do."""
    if "--help" in command:
        return command
    for pattern, replacement in SMALLER.items():
        command = re.sub(pattern, replacement, command)
    return command


def play(page: Path, folder: Path) -> None:
    """Do everything that a page says, in ``folder``.

    Raises:
        AssertionError: something does not do what the page says; names the line.
    """
    all_blocks = blocks(page)
    namespace: dict[str, Any] = {"__name__": "page"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for index, block in enumerate(all_blocks):
            position = f"{page.name}:{block.line}"
            if block.language == "bash":
                _type(block, answer_of(index, all_blocks), position)
            elif block.language == "python":
                _run_python(block, namespace, position)
            elif block.language == "yaml":
                _resolve(block, position)
    finally:
        _service.end()
        os.chdir(before)


class _Service:
    """The service that a page has started, if any."""

    process: subprocess.Popen[str] | None = None
    port = "8000"

    def start(self, arguments: list[str]) -> tuple[int, str]:
        self.end()
        command = [sys.executable, "-m", "boxwright", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        line = self.process.stderr.readline()
        address = re.match(r"ready at http://[\d.]+:(\d+)/", line)
        self.port = address[1] if address else self.port
        return (0 if address else 1), line

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            assert self.process.stderr
            self.process.stderr.close()
            assert self.process.wait(30) == 0
        self.process, self.port = None, "8000"

    def at_its_port(self, text: str) -> str:
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")


_service = _Service()


def _type(block: Block, answer: str | None, position: str) -> None:
    printed = ""
    expected = 2 if answer is not None and "boxwright: error:" in answer else 0
    for command in commands(block.text):
        status, output = _run(command if answer is not None else smaller(command))
        assert status == expected, f"{position}: {command}\nended with status {status}:\n{output}"
        printed += output
    for line in (answer or "").splitlines():
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in line.split("..."))
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        assert any(re.fullmatch(pattern, one) for one in lines), f"{position}: not printed: {line}\nbut:\n{printed}"


def _run(command: str) -> tuple[int, str]:
    """Run one command; return its status and output."""
    program, *arguments = shlex.split(command)
    if command in NOT_TYPED or command.startswith(ELSEWHERE):
        return 0, ""
    if program == "boxwright" and arguments[0] == "serve" and "--help" not in arguments:
        return _service.start(arguments)
    if program == "boxwright":
        return _run_boxwright(arguments)
    if program == "curl":
        arguments = ["--silent", "--show-error", "--fail", *map(_service.at_its_port, arguments)]
        done = subprocess.run([program, *arguments], capture_output=True)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        arguments = [argument for argument in arguments if "=" not in argument]
        return (0, "") if set(arguments) <= set(targets) else (1, f"no such target in the Makefile: {arguments}")
    if program == "cp":
        shutil.copy(*arguments)
        return 0, ""
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    return 1, "the tests do not know how to run this"


def _run_boxwright(arguments: list[str]) -> tuple[int, str]:
    """Run it as if typed at a prompt: it sees no module of the reader's imported already, and leaves none."""
    from boxwright.cli.main import main

    path = list(sys.path)
    _forget_modules_of(Path.cwd())
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    sys.path[:] = path
    _forget_modules_of(Path.cwd())
    return status, output.getvalue()


def _forget_modules_of(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not name.startswith("boxwright") and Path(file).parent == folder:
            del sys.modules[name]


def _run_python(block: Block, namespace: dict[str, Any], position: str) -> None:
    file = re.match(r"# (\S+\.py)\n", block.text)
    if file:
        Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(file[1]).write_text(block.text.partition("\n")[2], encoding="utf-8")
        return
    sys.path.append(str(Path.cwd()))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            text = _service.at_its_port(block.text)
            exec(compile("\n" * (block.line - 1) + text, position, "exec"), namespace)
    finally:
        sys.path.pop()


def _resolve(block: Block, position: str) -> None:
    from boxwright.compose.recipes import resolve
    from boxwright.workflows.study_file import read_study

    Path("page.yaml").write_text(block.text, encoding="utf-8")
    if "\nvariations:" in block.text:
        assert read_study("page.yaml").variations, position
        return
    assert resolve("page.yaml").notes == (), position


def load_generator() -> ModuleType:
    """The module ``docs/tables.py``, which imports others of its folder."""
    if (folder := str(ROOT / "docs")) not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["tables"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    play(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
