"""Models of the Hugging Face hub: its client, its cache, and errors in one line; the hub is a server of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

import boxwright
from boxwright.weights.location import open_source
from boxwright.weights.source import SourceFiles
from weights.fake_hub import COMMIT, FakeServer, serve

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3)}
CARD = b"---\nlicense: apache-2.0\ntags: [x]\n---\n# A model\n"


def repository(name: str = "owner/model", **files: bytes) -> dict[str, bytes]:
    """Files of a repository by their path on the server."""
    content = {
        "model.safetensors": save(TENSORS),
        "config.json": json.dumps({"model_type": "any"}).encode(),
        "preprocessor_config.json": json.dumps({"do_resize": True}).encode(),
        "README.md": CARD,
        "training_args.bin": b"no business of ours",
        **files,
    }
    return {f"/{name}/{file}": data for file, data in content.items()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve(FakeServer(repository())) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server


def fetched(hub: FakeServer) -> list[str]:
    """Names of the files that were sent; the client also asks for lists of its own."""
    return [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


def opened(source: str) -> SourceFiles:
    files = open_source(source)
    assert isinstance(files, SourceFiles)
    return files


def test_a_repository_is_downloaded_once_and_its_revision_recorded(
    hub: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = opened("hf:owner/model")
    assert files.tensors["a.weight"].tolist() == TENSORS["a.weight"].tolist()
    assert files.config == {"model_type": "any"}
    assert files.preprocessor == {"do_resize": True}
    assert (files.origin.source, files.origin.revision) == ("hf:owner/model", COMMIT)
    assert files.origin.license == "apache-2.0"
    names = fetched(hub)
    assert sorted(names) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    opened("hf:owner/model@main")
    assert fetched(hub) == names
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = opened("hf:owner/model")
    assert again.origin == files.origin
    assert opened(f"hf:owner/model@{COMMIT}").origin.revision == COMMIT
    assert hub.requests == []


def test_weights_in_several_files_and_in_torchs_format(hub: FakeServer, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a.weight": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    parts = {"model-1.safetensors": save(TENSORS), "model-2.safetensors": save({"b": torch.ones(1)})}
    hub.files = repository("owner/parts", **{"model.safetensors.index.json": index, **parts})
    del hub.files["/owner/parts/model.safetensors"]
    assert set(opened("hf:owner/parts").tensors) == {"a.weight", "b"}
    torch.save(TENSORS, tmp_path / "x.bin")
    hub.files = repository("owner/old", **{"pytorch_model.bin": (tmp_path / "x.bin").read_bytes()})
    del hub.files["/owner/old/model.safetensors"], hub.files["/owner/old/README.md"]
    old = opened("hf:owner/old")
    assert set(old.tensors) == {"a.weight"}
    assert old.origin.license is None


def test_a_checkpoint_of_ours_on_the_hub(hub: FakeServer, tmp_path: Path) -> None:
    detector = boxwright.build(
        "retinanet_r18_fpn", num_classes=2, overrides={"backbone.width": 8, "neck.out_channels": 32}
    )
    detector.save(tmp_path / "x.safetensors")
    hub.files = repository("owner/ours", **{"model.safetensors": (tmp_path / "x.safetensors").read_bytes()})
    path = open_source("hf:owner/ours")
    assert isinstance(path, Path)
    assert path.parent.name == COMMIT


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("hf:owner/none", {}, r"hf:owner/none: no such repository on the hub; to a private one, `hf auth login`"),
        ("hf:owner/model", {"/owner/model": (403, "GatedRepo")}, r"hf:owner/model: a gated repository; accept"),
        ("hf:owner/model@v9", {"/owner/model": (404, "RevisionNotFound")}, r"the repository has no revision v9"),
        ("hf:owner/model", {"/owner/model/model.safetensors": (404, "EntryNotFound")}, r"no weights in this reposi"),
        ("hf:a/b/c", {}, r"hf:a/b/c: a model of the hub is hf:OWNER/NAME"),
        ("hf:../../etc", {}, r"a model of the hub is hf:OWNER/NAME"),
        ("hf:", {}, r"a model of the hub is hf:OWNER/NAME"),
    ],
)
def test_refusals_are_one_line(hub: FakeServer, source: str, status: dict[str, tuple[int, str]], message: str) -> None:
    hub.status = status
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        open_source(source)
    assert "\n" not in str(caught.value)


def test_without_a_connection_the_line_names_the_folder(
    hub: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "cache" / "models--owner--model" / "snapshots" / "main"
    with pytest.raises(FileNotFoundError) as caught:
        open_source("hf:owner/model")
    line = str(caught.value)
    assert line == (
        "hf:owner/model: not in the cache, and HF_HUB_OFFLINE is set; "
        f"put its config.json and model.safetensors into {folder}"
    )
    assert hub.requests == []
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(save(TENSORS))
    (folder / "config.json").write_text("{}")
    files = opened("hf:owner/model")
    assert set(files.tensors) == set(TENSORS)
    assert files.origin.revision is None


def test_an_interrupted_download_goes_on(hub: FakeServer) -> None:
    content = save({"a.weight": torch.zeros(200_000)})
    hub.files["/owner/model/model.safetensors"] = content
    hub.cut["/owner/model/model.safetensors"] = 300_000
    assert set(opened("hf:owner/model").tensors) == {"a.weight"}
    ranges = [part for method, path, part in hub.requests if method == "GET" and "model.safetensors" in path]
    assert ranges[0] is None
    assert ranges[-1] is None or ranges[-1].startswith("bytes=")


def test_names_of_repositories_without_hf() -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder \(the model of the hub is hf:owner/model\)"):
        open_source("owner/model")
    with pytest.raises(FileNotFoundError, match=r"addresses are not opened: download the file first"):
        open_source("https://example.com/x.pth")
