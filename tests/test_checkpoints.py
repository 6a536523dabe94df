"""The format of checkpoints: safetensors with a header, torch's own, and files that are neither."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import boxwright
from boxwright.checkpoints import (
    find_checkpoint,
    is_checkpoint,
    is_run,
    pack_checkpoint,
    passport_of,
    read_checkpoint,
    write_checkpoint,
)
from boxwright.compose.recipes import resolve
from boxwright.passport import Origin, Passport, TrainingData
from boxwright.structures import Category
from boxwright.weights.model import read_model

PASSPORT = Passport(
    version="0.2.0",
    recipe="rtdetr_r18",
    data=TrainingData(name="shapes", num_images=8, sha256="ab" * 32),
    metrics={"AP": 0.5},
    parent=Passport(version="0.1.0", origin=Origin(source="hf:A/B", kind="hf_rtdetr", revision="r", license="mit")),
)
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3), "half": torch.ones(2).half()}
CATEGORIES = [Category(7, "seven"), Category(3, "drei «3»")]


def content(**changes: Any) -> dict[str, Any]:
    return {**pack_checkpoint({"input": {"mean": [0.5]}}, CATEGORIES, TENSORS, PASSPORT), **changes}


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.pth", "x"])
def test_a_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_checkpoint(path, content(progress={"step": 3, "best": 0.25}))
    assert is_checkpoint(path)
    read = read_checkpoint(path)
    assert read["recipe"] == {"input": {"mean": [0.5]}}
    assert [tuple(one) for one in read["categories"]] == [(7, "seven"), (3, "drei «3»")]
    assert read["progress"] == {"step": 3, "best": 0.25}
    assert passport_of(read) == PASSPORT
    assert read["model"].keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert torch.equal(read["model"][key], tensor)
        assert read["model"][key].dtype == tensor.dtype
    if name in ("x.safetensors", "x"):
        with safe_open(path, "pt") as file:
            header = file.metadata()
        assert (header["format"], header["version"]) == ("boxwright", "5")
        assert json.loads(header["passport"])["parent"]["origin"]["license"] == "mit"


def test_tensors_in_any_memory(tmp_path: Path) -> None:
    base = torch.randn(4, 6, 3, 3)
    tensors = {
        "last": base.to(memory_format=torch.channels_last),
        "one": base[0],
        "all": base,
        "turned": base[0, 0].T,
        "grad": torch.nn.Parameter(base[1]),
    }
    write_checkpoint(tmp_path / "x.safetensors", content(model=tensors))
    read = read_checkpoint(tmp_path / "x.safetensors")["model"]
    for key, tensor in tensors.items():
        assert torch.equal(read[key], tensor)


def test_others_may_read_the_file_as_the_user_has_set_it(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    for name in ("x.safetensors", "x.pt"):
        write_checkpoint(tmp_path / name, content())
        assert os.stat(tmp_path / name).st_mode == os.stat(plain).st_mode


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_an_earlier_file_stays_where_writing_fails(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    write_checkpoint(path, content())
    before = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(path, content(model={}))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_links_and_devices_stay_what_they_are(tmp_path: Path, name: str) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "links" / name, tmp_path / "pipe" / name
    for path in (link, pipe):
        path.parent.mkdir()
    link.symlink_to(real)
    write_checkpoint(link, content())
    real.chmod(0o640)
    write_checkpoint(link, content(progress={"step": 1}))
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert read_checkpoint(link)["progress"] == {"step": 1}
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_checkpoint(pipe, content(progress={"step": 1}))
    reader.join(10)
    assert pipe.is_fifo()
    (tmp_path / name).write_bytes(received[0])
    assert read_checkpoint(tmp_path / name)["progress"] == {"step": 1}
    assert [one.name for one in tmp_path.rglob("*unfinished*")] == []


def test_saving_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    detector = boxwright.build("resnet18_classifier", num_classes=2, overrides={"input.image_size": 64})
    detector.save(tmp_path / "new" / "folder" / "x")
    assert is_checkpoint(tmp_path / "new" / "folder" / "x")
    for path, message in (
        (tmp_path, "is a folder; give the name of a file"),
        (".", "is a folder; give the name of a file"),
        (tmp_path / "new" / "folder" / "x" / "y.pt", "cannot be written: .* is a file, not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.save(path)


def test_the_best_of_a_run_comes_first(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    for name in ("last.previous.pt", "last.pt", "best.pt", "best.safetensors"):
        write_checkpoint(tmp_path / name, content())
        assert find_checkpoint(tmp_path) == tmp_path / name
        assert is_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 6}, "has checkpoint format 6, this release reads 1 to 5"),
        ({"version": True, "recipe": 5, "model": {}}, "damaged checkpoint"),
        ({"categories": [3]}, "a damaged checkpoint: its categories are not pairs of an id and a name"),
        ({"categories": None}, "a damaged checkpoint"),
        ({"passport": {"recipe": "x"}}, "a damaged checkpoint: a passport without the version"),
        ({"passport": 3}, "a damaged checkpoint"),
        ({"version": 2, "recipe": {"train": 3}}, "a damaged checkpoint"),
    ],
)
def test_headers_that_are_not_right(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_checkpoint(tmp_path / "x.safetensors", content(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_headers_end_in_one_line(tmp_path: Path, count: int) -> None:
    recipe = resolve("detr_r50").recipe.to_dict()
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, content(recipe=recipe))
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    generator = np.random.default_rng(0)
    refused = []
    for _ in range(count):
        mutated = bytearray(whole[: 8 + length])
        for _ in range(generator.integers(1, 5)):
            mutated[generator.integers(0, len(mutated))] = generator.integers(0, 256)
        path.write_bytes(bytes(mutated) + whole[8 + length :])
        try:
            read_model(path)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > count / 4
    assert not any("\n" in line for line in refused)


@pytest.mark.slow
def test_loading_takes_half_a_second_beyond_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    boxwright.build("rtdetr_r50", num_classes=80).save(path)
    boxwright.load(path)  # imports the parts
    seconds = []
    for _ in range(5):
        start = time.process_time()
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        between = time.process_time()
        boxwright.load(path)
        seconds.append((time.process_time() - between) - (between - start))
        assert len(tensors) > 500
    assert min(seconds) < 0.5
