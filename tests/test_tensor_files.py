"""Files of tensors: code in them does not run, damage is one line, and memory is that of the file."""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import json
import os
import pathlib
import pickle
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from boxwright.stand_ins import MAX_VALUES, StandIn, to_plain
from boxwright.tensor_files import read_tensor_file
from boxwright.weights.location import open_source
from boxwright.weights.source import SourceFiles

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}

MARKER = "BOXWRIGHT_TEST_CODE_HAS_RUN"


class Reduced:
    """An object that is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class HistoryBuffer:
    """As mmengine's: numbers, and statistics by name."""

    def __init__(self) -> None:
        self._log_history = np.array([1.5, 2.5])
        self._statistics_methods = {"mean": "x"}


@pytest.fixture(autouse=True)
def no_code_runs() -> Iterator[None]:
    """Make sure that no code of a file has run."""
    os.environ.pop(MARKER, None)
    yield
    assert MARKER not in os.environ


def write(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def one_line_error(path: Path) -> str:
    """Open a source that must be refused; returns the line."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        open_source(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


CODE = f"__import__('os').environ.__setitem__({MARKER!r}, '1')"
CALLS = {
    "eval": Reduced(eval, CODE),
    "exec": Reduced(exec, CODE),
    "getattr": Reduced(getattr, pathlib.Path, "home"),
    "import": Reduced(builtins.__import__, "antigravity"),
    "jit": Reduced(torch.jit.load, "/nowhere"),
    "load": Reduced(torch.load, "/nowhere"),
    "pickle": Reduced(pickle.loads, pickle.dumps(Reduced(eval, CODE))),
    "nested": [{"x": (Reduced(eval, CODE), [Reduced(Reduced, 1)])}],
    "putenv": Reduced(os.environ.__class__.setdefault, {}, MARKER, "1"),
    "objects": np.array([Reduced(eval, CODE), 3], dtype=object),
    "partial": Reduced(__import__("functools").partial, eval, CODE),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_calls_in_a_file_are_not_made(tmp_path: Path, name: str, zipped: bool) -> None:
    """The function is a stand-in that does nothing, or the file is refused."""
    path = write(tmp_path / "x.pth", {"model": TENSORS, "trap": CALLS[name]}, zipped)
    try:
        files = open_source(path)
    except ValueError as error:
        line = str(error)
    else:
        assert isinstance(files, SourceFiles)
        line = json.dumps(files.extra)
        assert set(files.tensors) == set(TENSORS)
    assert "\n" not in line


@pytest.mark.parametrize("zipped", [True, False])
def test_calls_of_the_system_are_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    path = write(tmp_path / "x.pth", {"model": TENSORS, "x": Reduced(os.system, f"touch {tmp_path}/ran")}, zipped)
    assert "refused, for reading it would call posix.system" in one_line_error(path)
    assert not (tmp_path / "ran").exists()


def test_memory_of_a_number_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth", {"model": TENSORS, "x": Reduced(bytearray, 10**10)})
    assert "refused, for reading it would call builtins.bytearray" in one_line_error(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_values_of_other_classes_are_plain(tmp_path: Path, zipped: bool) -> None:
    buffer = HistoryBuffer()
    content = {
        "model": TENSORS,
        "args": argparse.Namespace(lr=1e-4, output=pathlib.PurePosixPath("/a/b"), layers=[1, 2]),
        "meta": collections.OrderedDict(epoch=3, score=np.float64(0.5), big=np.int64(2**40), map=np.arange(3)),
        "history": {"loss": buffer},
        "queue": collections.deque([1, 2], maxlen=4),
        "counts": collections.defaultdict(int, {"x": 1}),
        "optimizer": torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.1).state_dict(),
        "objects": np.array([1, "x"], dtype=object),
    }
    files = open_source(write(tmp_path / "x.pth", content, zipped))
    assert isinstance(files, SourceFiles)
    assert files.extra["args"] == {"lr": 1e-4, "output": "/a/b", "layers": [1, 2]}
    assert files.extra["meta"] == {"epoch": 3, "score": 0.5, "big": 2**40, "map": [0, 1, 2]}
    assert files.extra["history"] == {"loss": {"_log_history": [1.5, 2.5], "_statistics_methods": {"mean": "x"}}}
    assert files.extra["queue"] == [1, 2]
    assert files.extra["counts"] == {"x": 1}
    assert files.extra["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert "objects" not in files.extra


def test_a_few_bytes_do_not_become_many_values() -> None:
    """Each list holds the one before twice: 2 to the power of 60 values."""
    values: Any = [1]
    for _ in range(60):
        values = [values, values]
    plain = to_plain({"x": values, "deep": [values] * 3})
    assert len(str(plain)) < 20 * MAX_VALUES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(2, 2), "holds a whole object"),
        ([1, 2], "holds a list, not tensors by name"),
        ({"epoch": 3, "args": {}}, "holds no tensors by name; it holds epoch, args"),
        ({}, "holds no tensors by name; it holds nothing"),
        ({"model": torch.nn.Linear(2, 2)}, "holds no tensors by name; it holds model"),
        ({"x": torch.zeros(1).expand(10**6)}, r"larger than the file"),
        ({"x": torch.eye(3).to_sparse()}, "sparse, quantized or without content"),
        ({"x": torch.zeros(3, device="meta")}, "sparse, quantized or without content"),
    ],
)
def test_content_that_is_no_weights(tmp_path: Path, content: Any, message: str) -> None:
    assert message in one_line_error(write(tmp_path / "x.pth", content))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "x.pt"))
    assert "a TorchScript archive, which is a program" in one_line_error(tmp_path / "x.pt")


def _zip(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _torch_bytes(zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is an empty file"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "it is a JPEG image"),
        (b"\x89PNG\r\n" + bytes(100), "it is a PNG image"),
        (b"<!DOCTYPE html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"some text that is no model", "not a file of weights, or a damaged one"),
        (bytes(1000), "not a file of weights"),
        (_zip(readme=b"x"), "a zip archive, but not of torch: it has no tensors"),
        (_torch_bytes()[:-30], "damaged"),
        (_torch_bytes()[:200], "damaged"),
        (_torch_bytes(zipped=False)[:-9], "damaged"),
        (_torch_bytes(zipped=False)[:90], "damaged"),
        (save(TENSORS)[:-1], "damaged"),
        (save(TENSORS)[:60], "damaged"),
        (struct.pack("<Q", 10**10) + save(TENSORS)[8:], "not a file of weights, or a damaged one"),
        (struct.pack("<Q", 2) + b"{}", "holds no tensors by name; it holds nothing"),
    ],
    ids=range(16),
)
def test_files_of_another_kind(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    assert message in one_line_error(tmp_path / "x.pth")


def test_folders_pipes_and_links(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, not a file of weights"):
        read_tensor_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match=r"pipe: not a regular file|no such file"):
        read_tensor_file(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(FileNotFoundError, match="link: not a regular file"):
        read_tensor_file(tmp_path / "link")


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    """10 GB in 10 MB: what unpacks to more than the file is not unpacked."""
    buffer = io.BytesIO(_torch_bytes())
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) + bytes(10**6))
    assert "its entries are compressed" in one_line_error(tmp_path / "x.pth")


def test_a_claim_of_10_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2500000000], "data_offsets": [0, 10**10]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    write(tmp_path / "legacy.pth", {"a": torch.zeros(1).expand(2**31)}, zipped=False)
    write(tmp_path / "x.pth", {"a": torch.zeros(1).expand(2**31)})
    (tmp_path / "claim.pth").write_bytes(_claim_of_storage())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("x.safetensors", "legacy.pth", "x.pth", "claim.pth"):
        one_line_error(tmp_path / name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, "kilobytes"


def _claim_of_storage() -> bytes:
    """An old file that says that a storage of 6 numbers has 2,147,483,647."""
    content = _torch_bytes(zipped=False)
    at = content.index(b"X\x03\x00\x00\x00cpuq") + len(b"X\x03\x00\x00\x00cpuq") + 1
    assert content[at : at + 2] == b"K\x06"
    return content[:at] + b"J\xff\xff\xff\x7f" + content[at + 2 :]


def _mutate(data: bytes, length: int, generator: np.random.Generator) -> bytes:
    """Change, remove or add some bytes among the first ``length``."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 5))):
        at = int(generator.integers(0, length))
        match int(generator.integers(0, 4)):
            case 0:
                changed[at : at + 1] = bytes([int(generator.integers(0, 256))])
            case 1:
                del changed[at : at + int(generator.integers(1, 9))]
            case 2:
                changed[at:at] = generator.bytes(int(generator.integers(1, 9)))
            case _:
                changed[at : at + 1] = bytes(
                    [changed[min(at, len(changed) - 1)] ^ (1 << int(generator.integers(0, 8)))]
                )
    return bytes(changed)


@pytest.mark.parametrize("count", [300, pytest.param(3400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_mutated_headers_are_one_line_or_tensors(tmp_path: Path, kind: str, count: int) -> None:
    """Files with one bit turned: tensors that can be looked at, or one line; 10,000 files in the slow run."""
    path = tmp_path / "x"
    if kind == "safetensors":
        data = save(TENSORS, {"format": "pt"})
        length = 8 + struct.unpack("<Q", data[:8])[0]
    else:
        data = _torch_bytes(zipped=kind == "torch")
        length = len(data)
    generator = np.random.default_rng(7)
    lines: list[str] = []
    for _ in range(count):
        path.write_bytes(_mutate(data, length, generator))
        try:
            content = read_tensor_file(path).content
        except (ValueError, FileNotFoundError) as error:
            lines.append(str(error))
        else:
            if isinstance(content, dict):
                [value.sum() for value in content.values() if isinstance(value, torch.Tensor)]
    assert len(lines) > count / 10
    assert not any("\n" in line for line in lines)


def test_threads_do_not_lend_each_other_names(tmp_path: Path) -> None:
    write(tmp_path / "x.pth", {"model": TENSORS, "args": argparse.Namespace(x=1)})
    before = set(torch.serialization.get_safe_globals())
    assert isinstance(read_tensor_file(tmp_path / "x.pth").content["args"], StandIn)
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_stand_in_that_loads_is_no_tensor(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    file = read_tensor_file(tmp_path / "x.safetensors")
    assert file.metadata == {}
    assert set(file.content) == set(TENSORS)
