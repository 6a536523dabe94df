"""Malformed checkpoints, recipes and folders of runs: one line, quickly, in bounded memory; no traceback, no code."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

import boxwright
from boxwright.compose.recipes import resolve
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.workflows.observer import Observer
from hostile_values import mutate_document
from tiny_recipe import TINY_RECIPE

SECONDS = 10
"""For a file, at most."""

MEMORY = 6 * 2**30
"""Bytes beyond those that the tests have, at most."""

LETTERS = 2_000
"""Of a message, at most."""

PIECES = (
    "[" * 3000, "{a: " * 3000, "- " * 3000, "1:" * 3000, "&a [*a]", "*b", "!!python/object/apply:os.system [ls]", "\t",
    "!!set {a}", "? [1]\n: 2", "2001-99-99", "!!binary a", "<<: [1]", "\x1b", "!!int 'x'", "0x" + "f" * 9000,
)  # fmt: skip
"""Texts that stop YAML readers."""


class Quiet(Observer):
    """Hears notes, and makes sure that they can be shown."""

    def note(self, line: str) -> None:
        assert "\n" not in line

    def announce(self, line: str) -> None:
        assert "\n" not in line


class TooSlowError(Exception):
    """A file that takes too long; no TimeoutError, which is an OSError."""


class StopAtOnce(Callback):
    def on_step(self, event: StepEvent) -> None:
        event.stop()


@contextmanager
def bounds() -> Iterator[None]:
    """Raise TooSlowError where the block takes longer, and errors of memory where it takes more."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"took more than {SECONDS} s")

    used = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line).split()[1])
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + MEMORY, limits[1]))
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of work: other processes may have the machine
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def is_refused(work: Callable[[], Any]) -> bool:
    """Do something with a hostile file; returns whether it ended in an error of one line."""
    with bounds():
        try:
            work()
        except (ValueError, OSError) as error:
            message = str(error)
            assert message.isprintable(), message[:300]
            assert 0 < len(message) <= LETTERS, (len(message), message[:300])
            return True
    return False


class Originals:
    """The files that are mutated, read once."""

    def __init__(self, run: Path, data: Path) -> None:
        self.run, self.data = run, data
        self.last = torch.load(run / "last.pt", weights_only=True)
        with safe_open(run / "best.safetensors", "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.header = {name: text for name, text in file.metadata().items() if name != "format"}


@pytest.fixture(scope="module")
def originals(trained: Path, drawn: Path) -> Originals:
    return Originals(trained, drawn)


def mutate_last(originals: Originals, folder: Path, draw: random.Random) -> tuple[Path, str]:
    """Write a mutated ``last.pt`` into the folder of a run."""
    content, what = mutate_document(originals.last, draw, python=True)
    folder.mkdir()
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except RecursionError:  # Python cannot write it; others could.
        buffer = io.BytesIO(_nest_in_pickle(originals.last))
    (folder / "last.pt").write_bytes(buffer.getvalue())
    return folder, what


def _nest_in_pickle(content: dict[str, Any]) -> bytes:
    """Write a checkpoint whose recipe is a list in a list, 100,000 deep."""
    buffer = io.BytesIO()
    torch.save({**content, "recipe": "RECIPE"}, buffer)
    source, target = zipfile.ZipFile(buffer), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for entry in source.infolist():
            data = source.read(entry)
            text = b"X\x06\x00\x00\x00RECIPE"
            if entry.filename.endswith("/data.pkl"):
                assert text in data
                # A mark, as many empty lists, each of which is appended to the one before.
                data = data.replace(text, b"]" * 100_000 + b"a" * 99_999)
            archive.writestr(entry, data)
    return target.getvalue()


def mutate_best(originals: Originals, folder: Path, draw: random.Random) -> tuple[Path, str]:
    """Write a ``best.safetensors`` whose header is mutated, in its values or its letters."""
    values = {name: json.loads(text) for name, text in originals.header.items()}
    if draw.random() < 0.8:
        values, what = mutate_document(values, draw, python=False)
        texts = {str(name): _to_json(value) for name, value in values.items()}
    else:
        name = draw.choice(list(values))
        text = originals.header[name]
        at = draw.randrange(len(text))
        what = draw.choice(("[" * 3000, '{"a":' * 3000, "NaN", "1e999", "9" * 5000, '"', "\x1b", "}"))
        texts = {**originals.header, name: text[:at] + what + text[at + 1 :]}
    folder.mkdir()
    save_file(originals.tensors, folder / "best.safetensors", metadata={"format": "boxwright", **texts})
    return folder, what


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "[" * 3000


def mutate_bytes(originals: Originals, folder: Path, draw: random.Random) -> tuple[Path, str]:
    """Write a checkpoint with some bytes changed, cut or doubled."""
    name = draw.choice(("last.pt", "best.safetensors"))
    data = bytearray((originals.run / name).read_bytes())
    for _ in range(draw.choice((1, 1, 4, 50))):
        # Mostly where the structure stands.
        at = draw.randrange(min(len(data), draw.choice((20_000, len(data)))))
        data[at] ^= 1 << draw.randrange(8)
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)) :]
    folder.mkdir()
    (folder / name).write_bytes(data)
    return folder, f"bytes of {name}"


def mutate_recipe(folder: Path, draw: random.Random) -> tuple[Path, str]:
    """Write a mutated recipe."""
    folder.mkdir()
    text = yaml.safe_dump(TINY_RECIPE)
    what = "letters"
    if draw.random() < 0.75:
        document, what = mutate_document(TINY_RECIPE, draw, python=False)
        try:
            text = yaml.dump(document)
        except (RecursionError, ValueError):
            text = "backbone: " + "[" * 3000
    else:
        at = draw.randrange(len(text))
        piece = draw.choice(PIECES)
        text = text[:at] + piece + text[at + draw.randrange(20) :]
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    return folder / "r.yaml", what


def attempt(originals: Originals, folder: Path, seed: int) -> bool:
    """Mutate a file and use it; returns whether it was refused."""
    draw = random.Random(seed)
    kind = draw.choice(("last", "last", "best", "bytes", "recipe", "recipe"))
    if kind == "recipe":
        path, what = mutate_recipe(folder, draw)
        work: Callable[[], Any] = lambda: boxwright.build(path, num_classes=3)  # noqa: E731
    else:
        mutate = {"last": mutate_last, "best": mutate_best, "bytes": mutate_bytes}[kind]
        path, what = mutate(originals, folder, draw)
        if (path / "last.pt").exists() and draw.random() < 0.4:
            kind = "resume"
            work = lambda: boxwright.train(  # noqa: E731
                TINY_RECIPE, originals.data, out=path, resume=True, callbacks=[StopAtOnce()], observer=Quiet()
            )
        else:
            tell = boxwright.info if draw.random() < 0.2 else boxwright.load
            work = lambda: tell(path)  # noqa: E731
    began = time.monotonic()
    try:
        return is_refused(work)
    except BaseException as error:
        error.add_note(f"seed {seed}, {kind}: {what} ({time.monotonic() - began:.1f} s)")
        raise


@pytest.mark.filterwarnings("ignore")
def test_a_sample_of_mutations(originals: Originals, tmp_path: Path) -> None:
    """The slow test has 3,000."""
    refused = sum(attempt(originals, tmp_path / str(seed), seed) for seed in range(30))
    assert 15 <= refused < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(10))
def test_three_thousand_mutations(originals: Originals, tmp_path: Path, part: int) -> None:
    """Of other ones with another BOXWRIGHT_FIRST_MUTATION."""
    count = int(os.environ.get("BOXWRIGHT_MUTATIONS", "3000")) // 10
    first = int(os.environ.get("BOXWRIGHT_FIRST_MUTATION", "1000")) + part * count
    failures = []
    for seed in range(first, first + count):
        try:
            attempt(originals, tmp_path / str(seed), seed)
        except Exception as error:  # all of them, to see the kinds
            failures.append(f"{error.__notes__[0][:300]}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:40])


def nested_aliases() -> str:
    """A few lines that stand for 10^12 values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        nested_aliases(),
        yaml.safe_dump(TINY_RECIPE) + "augment: &x {y: [*x]}",
        "backbone: " + "[" * 3000,
        "backbone: " + "{a: " * 3000,
        "- " * 3000,
        "backbone: !!python/object/apply:os.system [touch ran]",
        "backbone: {name: resnet, depth: 2001-99-99}",
        f"backbone: {{name: resnet, depth: {'9' * 5000}}}",
        "x" * 10_000_000,
    ],
)
def test_recipes_that_are_traps(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert is_refused(lambda: resolve(tmp_path / "r.yaml"))
    assert not Path("ran").exists()


SIZES = {
    "head.decoder.num_layers": (2**63, 2**62, 10**6),
    "head.hidden_dim": (2**40, 10**7),
    "neck.hidden_dim": (2**40, 10**7),
    "backbone.width": (2**40, 10**6),
    "input.image_size": (2**40, 10**7, 2**62),
    "train.batch_size": (2**40, 2**62),
    "train.runtime.workers": (10**6, 2**40),
    "train.batches.accumulate_steps": (2**40,),
    "head.denoising.num_queries": (2**40, 2**62),
}


@pytest.mark.parametrize("option", SIZES)
def test_numbers_that_would_take_all_memory_or_time(option: str, drawn: Path, tmp_path: Path) -> None:
    for value in SIZES[option]:
        changes = {option: value}
        if option == "train.batches.accumulate_steps":
            changes["train.batch_size"] = value
        assert is_refused(
            lambda changes=changes: boxwright.train(
                TINY_RECIPE, drawn, out=tmp_path / "run", overrides=changes, callbacks=[StopAtOnce()], observer=Quiet()
            )
        ), value


INSIDE = {"files are folders": "empty", "files are circles": "circle", "files are pipes": "pipe"}


def make_folder(kind: str, folder: Path) -> None:
    """Make something else in place of the folder of a run, or of what is in it."""
    if kind == "empty":
        folder.mkdir()
    elif kind == "circle":
        folder.symlink_to(folder.name)
    elif kind == "file":
        folder.write_text("x")
    elif kind == "pipe":
        os.mkfifo(folder)
    elif kind != "nothing":
        folder.mkdir()
        for name in ("last.pt", "best.safetensors", "recipe.yaml"):
            make_folder(INSIDE[kind], folder / name)


FOLDERS = ("nothing", "empty", "circle", "file", "pipe", "files are folders", "files are circles", "files are pipes")


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_that_are_no_run(kind: str, tmp_path: Path, drawn: Path) -> None:
    folder = tmp_path / "run"
    make_folder(kind, folder)
    assert is_refused(lambda: boxwright.load(folder))
    assert is_refused(lambda: boxwright.info(folder, observer=Quiet()))
    assert is_refused(lambda: resolve(folder / "recipe.yaml"))
    assert is_refused(
        lambda: boxwright.train(TINY_RECIPE, drawn, out=folder, resume=True, callbacks=[StopAtOnce()], observer=Quiet())
    )
