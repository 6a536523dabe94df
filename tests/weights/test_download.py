"""Files in the cache of torch.hub: hash, resumption, and errors in one line; the server is one of the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from boxwright.weights.download import fetch_file
from boxwright.weights.location import open_source
from boxwright.weights.projects import timm_models
from boxwright.weights.projects.timm_models import TimmModel, find_timm_model
from boxwright.weights.projects.torchvision_releases import find_release
from boxwright.weights.source import SourceFiles
from weights.fake_hub import FakeServer, serve

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with serve(FakeServer({"/x.pth": CONTENT})) as running:
        yield running


def test_a_file_is_downloaded_once(server: FakeServer, tmp_path: Path) -> None:
    path = fetch_file(f"{server.url}/x.pth", SHA256[:8], source="torchvision:x")
    assert path == tmp_path / "hub" / "checkpoints" / "x.pth"
    assert path.read_bytes() == CONTENT
    assert fetch_file(f"{server.url}/x.pth", SHA256[:8], source="torchvision:x") == path
    assert len(server.requests) == 1
    assert [one.name for one in path.parent.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(server: FakeServer, ranges: bool) -> None:
    server.ranges = ranges
    server.cut["/x.pth"] = 300_000
    with pytest.raises(
        ValueError, match=r"torchvision:x: interrupted after \d+ bytes .*; the same command goes on"
    ) as at:
        fetch_file(f"{server.url}/x.pth", SHA256[:8], source="torchvision:x")
    assert "\n" not in str(at.value)
    assert fetch_file(f"{server.url}/x.pth", SHA256, source="torchvision:x").read_bytes() == CONTENT
    assert server.requests[1][2] == "bytes=300000-"


def test_the_rest_of_another_file_is_refused_and_deleted(server: FakeServer, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    partial = folder / "x.pth.partial"
    for before in (b"other bytes", CONTENT + b"more"):
        partial.write_bytes(before)
        if before == CONTENT + b"more":
            assert fetch_file(f"{server.url}/x.pth", SHA256, source="s").read_bytes() == CONTENT
        else:
            with pytest.raises(ValueError, match=rf"s: what .*/x.pth sent has the SHA-256 .* and should have {SHA256}"):
                fetch_file(f"{server.url}/x.pth", SHA256, source="s")
        assert not partial.exists()


def test_another_file_in_the_cache_is_refused(server: FakeServer) -> None:
    path = fetch_file(f"{server.url}/x.pth", None, source="torchvision:x")
    path.write_bytes(b"other")
    with pytest.raises(
        ValueError, match=rf"torchvision:x: {path} has the SHA-256 .* should have {SHA256[:8]}; delete it"
    ):
        fetch_file(f"{server.url}/x.pth", SHA256[:8], source="torchvision:x")
    assert path.read_bytes() == b"other"


def test_nothing_there_or_no_connection(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = rf"download http://.* by other means and put it into {tmp_path}/hub/checkpoints"
    with pytest.raises(FileNotFoundError, match=rf"s: http://.*/y.pth answers 404 Not Found; {advice}"):
        fetch_file(f"{server.url}/y.pth", None, source="s")
    with pytest.raises(FileNotFoundError, match=rf"s: cannot be downloaded \(.*refused.*\); {advice}"):
        fetch_file("http://127.0.0.1:9/y.pth", None, source="s")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    with pytest.raises(FileNotFoundError, match=rf"s: not in the cache, and HF_HUB_OFFLINE is set; {advice}"):
        fetch_file(f"{server.url}/x.pth", None, source="s")
    assert server.requests == []


def test_timm_elsewhere_than_on_the_hub(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    name = f"x-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = content
    model = find_timm_model("efficientnet_lite0")._replace(hub=None, url=f"{server.url}/{name}")
    monkeypatch.setattr("boxwright.weights.projects.timm_models.find_timm_model", lambda _: model)
    files = open_source("timm:efficientnet_lite0")
    assert isinstance(files, SourceFiles)
    assert files.release == "timm:efficientnet_lite0.ra_in1k"
    assert (files.origin.source, files.origin.license) == ("timm:efficientnet_lite0", "apache-2.0")
    server.files[f"/{name}"] = b"other"
    (tmp_path / "hub" / "checkpoints" / name).unlink()
    with pytest.raises(ValueError, match=r"timm:efficientnet_lite0: what .* sent has the SHA-256"):
        open_source("timm:efficientnet_lite0")


def test_names_of_timm() -> None:
    model = find_timm_model("tf_efficientnet_lite0")
    assert (model.name, model.mean, model.std) == ("tf_efficientnet_lite0.in1k", (0.5,) * 3, (0.5,) * 3)
    assert model.sha256_prefix == "0aa007d2"
    assert find_timm_model("resnet50.a2_in1k").hub == "timm/resnet50.a2_in1k"
    with pytest.raises(ValueError, match=r"timm has no model efficientnet_lit; nearest: efficientnet_lite"):
        find_timm_model("efficientnet_lit")
    with pytest.raises(ValueError, match=r"timm knows no such weights; its weights are tagged in1k$"):
        find_timm_model("tf_efficientnet_lite0.ra")
    with pytest.raises(ValueError, match=r"timm:botnet50ts_256: timm has this network, but no weights of it"):
        open_source("timm:botnet50ts_256")


def test_released_files_are_known_by_their_hash() -> None:
    model = timm_models.timm_model_of_file("0aa007d2" + "0" * 56)
    assert isinstance(model, TimmModel)
    assert model.name == "tf_efficientnet_lite0.in1k"
    assert timm_models.timm_model_of_file("0" * 64) is None
    # torchvision's files are torchvision's, though timm has their addresses too.
    assert timm_models.timm_model_of_file("0676ba61" + "0" * 56) is None


def test_torchvision_by_name(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared cache; the file's hash is checked, also of one that lies there already."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(FileNotFoundError, match=rf"torchvision:resnet18: not in the cache, .* put it into {folder}"):
        open_source("torchvision:resnet18")
    folder.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, folder / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match=r"resnet18-f37072fd.pth has the SHA-256 .*, and should have f37072fd; delete"):
        open_source("torchvision:resnet18")
    digest = hashlib.sha256((folder / "resnet18-f37072fd.pth").read_bytes()).hexdigest()
    release = find_release("resnet18")._replace(sha256_prefix=digest)
    monkeypatch.setattr("boxwright.weights.projects.torchvision_releases.find_release", lambda _: release)
    files = open_source("torchvision:resnet18")
    assert isinstance(files, SourceFiles)
    assert (files.release, files.origin.source) == ("torchvision:resnet18", "torchvision:resnet18")
    assert (files.origin.sha256, files.origin.license) == (digest, release.license)
    assert server.requests == []
