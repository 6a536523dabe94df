"""Checksums of checkpoints: one changed bit anywhere is found, and files of earlier releases are read."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from boxwright.checkpoints import pack_checkpoint, read_checkpoint, write_checkpoint
from boxwright.checksums import add_checksum, is_damaged, verify_checksum
from boxwright.structures import Category

NAMES = ("x.pt", "x.safetensors")

CONTENT = pack_checkpoint(
    {"input": {"mean": [0.5]}},
    [Category(1, "one")],
    {"a.weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2).half()},
)


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / request.param, CONTENT)
    return tmp_path / str(request.param)


def is_refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except ValueError as error:
        return "\n" not in str(error)
    return False


def test_one_changed_bit_anywhere_is_found(path: Path) -> None:
    """All bits of every byte of the checksum, of the header and the end; of the rest one of each byte."""
    whole = path.read_bytes()
    for bit in {*range(0, 8 * len(whole), 8), *range(8 * 64), *range(8 * (len(whole) - 128), 8 * len(whole))}:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << random.Random(bit).randrange(8) if bit % 8 == 0 else 1 << bit % 8
        assert is_refused(path, bytes(changed)), bit
    assert not is_refused(path, whole)


def test_cut_and_longer_files_are_found(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(0, len(whole), 5):
        assert is_refused(path, whole[:size]), size
    assert is_refused(path, whole + b"\0")


def test_without_one_they_are_read(tmp_path: Path) -> None:
    """As earlier releases and other programs write them."""
    torch.save(CONTENT, tmp_path / "x.pt")
    save_file(CONTENT["model"], tmp_path / "x.safetensors", {"format": "pt"})
    for name in NAMES:
        verify_checksum(tmp_path / name)
    assert read_checkpoint(tmp_path / "x.pt")["recipe"] == CONTENT["recipe"]


def test_other_programs_read_the_files(tmp_path: Path) -> None:
    for name in NAMES:
        write_checkpoint(tmp_path / name, CONTENT)
    assert torch.equal(torch.load(tmp_path / "x.pt", weights_only=True)["model"]["half"], CONTENT["model"]["half"])
    assert torch.equal(load_file(tmp_path / "x.safetensors")["half"], CONTENT["model"]["half"])


def test_a_copy_is_as_good(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "copy")
    assert not is_damaged(tmp_path / "copy")


def test_it_is_not_part_of_the_content(path: Path) -> None:
    assert "checksum" not in read_checkpoint(path)


def test_files_without_a_place_for_one(tmp_path: Path) -> None:
    save_file(CONTENT["model"], tmp_path / "x.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="neither an archive of torch nor safetensors with a place"):
        add_checksum(tmp_path / "x.safetensors")
