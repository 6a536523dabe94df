"""Shards on a Ray cluster of two machines, both of which are this one: nothing is lost, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

import boxwright
from boxwright.workflows.observer import Observer
from boxwright.workflows.ray_engine import DeviceSlot, list_slots
from passing_detector import gray
from stand_in_export import write_stand_in

MARK = "BOXWRIGHT_TEST_OF_RAY"
"""A variable of the environment by which processes of these tests are told from all others."""

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'boxwright[ray]'")


class Notes(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def node(name: str, cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("uses_gpus", "expected"),
    [
        (None, [("a", 0, 8, 0), ("b", 0, 4, 1), ("b", 1, 4, 1), ("b", 2, 4, 1)]),
        (False, [("a", 0, 8, 0), ("b", 0, 14, 0)]),
        (True, [("b", 0, 4, 1), ("b", 1, 4, 1), ("b", 2, 4, 1)]),
    ],
)
def test_a_worker_for_each_device(uses_gpus: bool | None, expected: list[tuple[Any, ...]]) -> None:
    nodes = [node("a", 8), node("gone", 8, alive=False), node("b", 14, 3), node("head", 0)]
    assert list_slots(nodes, uses_gpus=uses_gpus) == [DeviceSlot(*one) for one in expected]


def test_ray_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gray(0.5)).save(tmp_path / "a.png")
    model = write_stand_in(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"engine ray needs Ray: pip install 'boxwright\[ray\]'"):
        boxwright.predict_shards(model, tmp_path / "a.png", tmp_path / "out", engine="ray")


@needs_ray
def test_a_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gray(0.5)).save(tmp_path / "a.png")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"Ray cannot be reached at 127\.0\.0\.1:1: .*refused"):
        boxwright.predict_shards(
            write_stand_in(tmp_path / "m.onnx"), tmp_path / "a.png", tmp_path / "out", engine="ray"
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with a processor each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[MARK] = uuid.uuid4().hex
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    made.shutdown()
    del os.environ["RAY_ADDRESS"], os.environ[MARK]


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    for index in range(20):
        Image.fromarray(gray(0.1 + 0.04 * index, 20 + index % 5, 30)).save(folder.parent / f"{index}.png")
    (folder.parent / "7.png").write_bytes(b"no image")
    for index in range(20_000):
        os.symlink(folder.parent / f"{index % 20}.png", folder / f"{index:05d}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("model") / "m.onnx")


@pytest.fixture(scope="module")
def expected(model: Path, links: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    boxwright.predict_shards(model, links, folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.lock"}


def find_workers() -> list[int]:
    """List the processes of this test's cluster that predict."""
    workers = []
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = (path / "cmdline").read_bytes().startswith(b"ray::ShardActor")
            if is_worker and mark in (path / "environ").read_bytes().split(b"\0"):
                workers.append(int(path.name))
        except OSError:
            continue
    return sorted(workers)


def count_complete(folder: Path) -> int:
    return len(list(folder.glob("*.done")))


def wait_for(folder: Path, count: int) -> None:
    end = time.monotonic() + 240
    while count_complete(folder) < count and time.monotonic() < end:
        time.sleep(0.05)
    assert count_complete(folder) >= count


def check(folder: Path, expected: dict[str, bytes]) -> None:
    assert contents(folder) == expected
    ids = [one for path in sorted(folder.glob("*.parquet")) for one in parquet.read_table(path)["image_id"].to_pylist()]
    assert ids == list(range(1, 20_001))


@pytest.mark.slow
@needs_ray
def test_a_worker_is_killed(cluster: Any, model: Path, links: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    assert len(cluster.list_all_nodes()) == 2
    seen: list[list[int]] = []

    def kill() -> None:
        wait_for(tmp_path / "out", 4)
        seen.append(find_workers())
        os.kill(seen[0][0], signal.SIGKILL)

    (killer := threading.Thread(target=kill)).start()
    notes = Notes()
    result = boxwright.predict_shards(model, links, tmp_path / "out", engine="ray", observer=notes)
    killer.join()
    assert len(seen[0]) == 2
    assert [line for line in notes.lines if "a worker of Ray was lost at shard" in line]
    assert (result.num_images, result.num_unreadable) == (19_000, 1_000)
    check(tmp_path / "out", expected)


@pytest.mark.slow
@needs_ray
def test_the_driver_is_killed_and_a_machine_goes(
    cluster: Any, model: Path, links: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = ["predict", str(model), str(links), "--results", str(tmp_path / "out"), "--engine", "ray", "--resume"]
    driver = subprocess.Popen([sys.executable, "-m", "boxwright", *command])
    wait_for(tmp_path / "out", 3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    gone = cluster.add_node(num_cpus=1)

    def remove() -> None:
        wait_for(tmp_path / "out", 12)
        cluster.remove_node(gone, allow_graceful=False)

    (remover := threading.Thread(target=remove)).start()
    notes = Notes()
    result = boxwright.predict_shards(model, links, tmp_path / "out", engine="ray", resume=True, observer=notes)
    remover.join()
    assert 3 <= result.num_resumed < 20
    check(tmp_path / "out", expected)


@pytest.mark.slow
@needs_ray
def test_what_a_worker_cannot_do_is_one_line(cluster: Any, links: Path, tmp_path: Path) -> None:
    assert cluster.address
    model = write_stand_in(tmp_path / "m.onnx")
    for options, message in (
        ({"device": "cuda:0"}, "exported file, which runs on the CPU"),
        ({"out": tmp_path / "drawn"}, "cannot be written"),
    ):
        if "out" in options:
            (tmp_path / "drawn").mkdir()
            for index in range(20):
                (tmp_path / "drawn" / f"{index:05d}.png").mkdir()
        with pytest.raises(ValueError, match=message) as caught:
            boxwright.predict_shards(model, links, tmp_path / "out", engine="ray", resume=True, **options)
        assert "\n" not in str(caught.value)
