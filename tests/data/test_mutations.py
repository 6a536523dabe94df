"""Mutated annotation files and images of every format: one line or the same objects, never a traceback or a loss.

A mutation is drawn from a seed, so that a failure can be repeated: ``mutate_folder(folder, seed)``.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from boxwright.data.image_check import SUFFIXES
from boxwright.data.open import find_reader, list_readers, open_data
from boxwright.data.records import DetectionData
from reader_examples import example_images, write_reader_example

LIMIT = 2_000
"""Letters of a message, at most."""

SECONDS = 20
"""Time for opening a data set of three images, at most."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e308, 10**30, -(10**30), 2**63, "", " ", "a", "1", "64.0", "1e400",
    "../../x", "/etc/passwd", "a\nb", "\ud800", "x" * 5000, "\0", [], {}, [[]], [1], [None], {"a": 1}, [1, 2, 3, 4],
)  # fmt: skip
NUMBERS = (b"1e400", b"-1e400", b"NaN", b"-Infinity", b"-1", b"0", b"1e5", b"9" * 401, b"9" * 5000, b"1.5", b"0x10")
PIECES = (
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"[" * 5000,
    b"<" * 50,
    b"{",
    b"}",
    b'"',
    b",",
)


class TooLongError(Exception):
    """A block took too long. No OSError: the readers' refusals are such, and a hang is none."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TooLongError where the block takes longer."""

    def stop(*_: object) -> None:
        raise TooLongError(f"took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def drop(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, 40) :]


def double(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    end = start + draw.randrange(1, 200)
    return data[:end] + data[start:]


def insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + draw.choice(PIECES) + data[at:]


def replace_number(data: bytes, draw: random.Random) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not numbers:
        return insert(data, draw)
    number = draw.choice(numbers)
    return data[: number.start()] + draw.choice(NUMBERS) + data[number.end() :]


def double_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    return b"".join([*lines[:at], lines[at], *lines[at:]] if draw.random() < 0.5 else [*lines[:at], *lines[at + 1 :]])


BYTES = (flip, cut, drop, double, insert, replace_number, double_line)


def containers(value: Any) -> Iterator[Any]:
    """Yield all objects and lists of a document that are not empty."""
    if isinstance(value, dict | list) and value:
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from containers(one)


def mutate_json(data: bytes, draw: random.Random) -> bytes:
    """Replace, drop, double or rename one value of a JSON document."""
    document = json.loads(data)
    chosen = draw.choice(list(containers(document)))
    key = draw.choice(list(chosen) if isinstance(chosen, dict) else range(len(chosen)))
    what = draw.randrange(6)
    if what <= 2:
        chosen[key] = draw.choice(VALUES)
    elif what == 3:
        del chosen[key]
    elif isinstance(chosen, list):
        chosen.insert(key, chosen[key])
    elif what == 4:
        chosen[draw.choice([key.upper(), key + " ", "", "id"])] = chosen.pop(key)
    else:  # a key twice
        text = json.dumps(document)
        again = f"{json.dumps(key)}: {json.dumps(draw.choice(VALUES))}, {json.dumps(key)}: "
        return text.replace(f"{json.dumps(key)}: ", again, 1).encode()
    return json.dumps(document).encode()


def mutate_folder(folder: Path, seed: int) -> str:
    """Change one file of a data set, or two; returns what was done."""
    draw = random.Random(seed)
    done = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        others = [path for path in files if path not in images]
        if not others or (images and draw.random() < 0.15):
            file, mutations = draw.choice(images), BYTES[:4]
        else:
            file, mutations = draw.choice(others), BYTES
        mutation: Callable[[bytes, random.Random], bytes] = draw.choice(mutations)
        if file.suffix == ".json" and draw.random() < 0.6:
            mutation = mutate_json
        try:
            file.write_bytes(mutation(file.read_bytes(), draw))
        except ValueError:  # no JSON any more, after the first mutation
            file.write_bytes(flip(file.read_bytes(), draw))
        done.append(f"{mutation.__name__} {file.relative_to(folder)}")
    return " and ".join(done)


def listed_objects(folder: Path, name: str) -> int | None:
    """Count the objects that the files of both splits list; None where a file cannot be read."""
    count = 0
    try:
        for file in folder.rglob("*"):
            if file.suffix == ".json":
                document = json.loads(file.read_bytes())
                count += len(document["annotations" if name == "coco" else "shapes"])
            elif file.suffix == ".xml":
                count += len(ElementTree.parse(file).getroot().findall("object"))
            elif file.suffix == ".txt" and name == "yolo":
                count += sum(bool(line.strip()) for line in file.read_text().splitlines())
    except (ValueError, KeyError, TypeError, RecursionError, ElementTree.ParseError):
        return None
    return count


def check_outcome(folder: Path, name: str, original: int | None) -> bool:
    """Open both splits of a folder, in a format and without; returns whether both could be read in the format."""
    opened = [
        open_or_refuse(folder, split, name, data_format) for data_format in (None, name) for split in ("train", "val")
    ]
    data = [one for one in opened[2:] if one is not None]
    listed = listed_objects(folder, name)
    if len(data) < 2 or listed is None or original is None:
        return len(data) == 2
    objects = sum(len(record.labels) for one in data for record in one.records)
    findings = [finding for one in data for finding in one.findings if finding.kind.severity != "note"]
    if name == "coco":
        assert listed == objects + sum(finding.kind.name == "empty_box" for finding in findings), (listed, objects)
    else:
        assert objects >= min(listed, original) or findings, (listed, objects)
    return True


def open_or_refuse(folder: Path, split: str, name: str, data_format: str | None) -> DetectionData | None:
    """Open a split; None where this is refused in one line."""
    with time_limit(SECONDS):
        try:
            data = open_data(folder, split, task=find_reader(name).TASK, data_format=data_format)
        except (ValueError, OSError) as error:
            check_line(str(error))
            return None
    for note in data.notes:
        check_line(note)
    return data


def check_line(line: str) -> None:
    assert line.isprintable(), repr(line)[:500]
    assert 0 < len(line) <= LIMIT, (len(line), line[:300])


def run(tmp_path: Path, name: str, seed: int) -> bool:
    """Write an example, mutate it, open it; returns True where it could be read."""
    folder = tmp_path / f"{name}{seed}"
    for split in ("train", "val"):
        write_reader_example(name, folder, split, example_images(find_reader(name).TASK, split))
    original = listed_objects(folder, name)
    what = mutate_folder(folder, seed)
    try:
        return check_outcome(folder, name, original)
    except BaseException as error:
        error.add_note(f"format {name}, seed {seed}: {what}")
        raise
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


FORMATS = list_readers()


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_of_mutations(tmp_path: Path, name: str) -> None:
    """Twenty-five of each format; the slow test has thousands."""
    readable = sum(run(tmp_path, name, seed) for seed in range(25))
    assert readable < 25
    assert readable > 0 or name == "class_folders"  # which has nothing but images, and every damage of them is found


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_mutations(tmp_path: Path, name: str) -> None:
    """10,000 over all formats."""
    count = int(os.environ.get("BOXWRIGHT_MUTATIONS", "10000")) // len(FORMATS) + 1
    failures = []
    for seed in range(1000, 1000 + count):
        try:
            run(tmp_path, name, seed)
        except Exception as error:  # all of them, to see the kinds
            failures.append(f"{error.__notes__[0]}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:30])


@pytest.mark.parametrize("name", FORMATS)
def test_a_pipe_in_place_of_an_image(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    for split in ("train", "val"):
        write_reader_example(name, folder, split, example_images(find_reader(name).TASK, split))
    for image in sorted(folder.rglob("c.png")):
        image.unlink()
        os.mkfifo(image)
    check_outcome(folder, name, None)
