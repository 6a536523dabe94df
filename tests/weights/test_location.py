"""The door: what a user names, found and read, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import boxwright
from boxwright.weights.location import open_source
from boxwright.weights.source import SourceFiles

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def assert_read(source: SourceFiles | Path) -> SourceFiles:
    """Make sure that the files of another project were read, with all tensors."""
    assert isinstance(source, SourceFiles)
    assert {name: tensor.tolist() for name, tensor in source.tensors.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }
    return source


def write_layout(folder: Path) -> Path:
    """Write a folder in Hugging Face layout."""
    folder.mkdir(parents=True)
    save_file(TENSORS, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "any"}))
    return folder


def test_a_checkpoint_of_ours_and_the_folder_of_a_run(tmp_path: Path) -> None:
    detector = boxwright.build(
        "retinanet_r18_fpn", num_classes=2, overrides={"backbone.width": 8, "neck.out_channels": 32}
    )
    detector.save(tmp_path / "last.pt")
    assert open_source(tmp_path / "last.pt") == tmp_path / "last.pt"
    assert open_source(str(tmp_path)) == tmp_path / "last.pt"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"model": x, "epoch": 3},
        lambda x: {"state_dict": x, "meta": {"epoch": 3}},
        lambda x: {"ema": {"module": x, "updates": 7}, "model": {"a.weight": torch.zeros(2, 3)}},
        lambda x: {"state_dict": {f"module.{name}": tensor for name, tensor in x.items()}},
    ],
    ids=["bare", "model", "state_dict", "ema", "parallel"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_tensors_in_files_of_torch(tmp_path: Path, wrap: object, zipped: bool) -> None:
    torch.save(wrap(TENSORS), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)  # type: ignore[operator]
    files = assert_read(open_source(tmp_path / "x.pth"))
    assert files.origin.source == str(tmp_path / "x.pth")
    assert len(files.origin.sha256 or "") == 64
    assert files.config == {}


def test_a_folder_in_hugging_face_layout(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "m")
    assert assert_read(open_source(folder)).config == {"model_type": "any"}
    # The file within tells less, and is enough for many kinds.
    assert assert_read(open_source(folder / "model.safetensors")).config == {}


def test_weights_in_several_files(tmp_path: Path) -> None:
    names = {"a.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for name, file in names.items():
        save_file({name: TENSORS[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    first = assert_read(open_source(tmp_path)).origin.sha256
    save_file({"b": torch.tensor(4)}, tmp_path / names["b"])
    files = open_source(tmp_path)
    assert isinstance(files, SourceFiles)
    assert files.origin.sha256 != first
    (tmp_path / names["b"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"00002-of-00002.safetensors: no such file, and model.safetensors.ind"):
        open_source(tmp_path)
    for name in ("../secret.safetensors", "/etc/passwd", "..", "", 3):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match=r"a damaged index; its weight_map has to name files of the same folder"):
            open_source(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none: no such file or folder; a model is the folder of a run"):
        open_source(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no weights in this folder; it would have one of model.safetensors"):
        open_source(tmp_path)
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match=r"link.pth: no such file or folder"):
        open_source(tmp_path / "link.pth")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match=r"loop: no such file or folder"):
        open_source(tmp_path / "loop")


def test_links_are_followed(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "blob")
    (tmp_path / "link.pth").symlink_to(tmp_path / "blob")
    assert_read(open_source(tmp_path / "link.pth"))
