"""Prediction in shards: nothing is lost or counted twice, whenever the process is killed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import boxwright
from boxwright.cli.main import main
from boxwright.workflows.observer import Observer
from boxwright.workflows.predict_shards import ShardedPrediction
from boxwright_runtime.answers import detection_rows
from passing_detector import gray, make_detector, png
from stand_in_export import write_stand_in
from training.kills import states_of

MEASURED = """
import re, sys
from pathlib import Path
from boxwright.cli.main import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


def draw(folder: Path, count: int) -> Path:
    """Images of several sizes and grays, which the stand-in tells apart by their scores."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(gray(0.1 + 0.8 * index / count, 20 + index % 5, 30)).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos", 11)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_stand_in(tmp_path / "model.onnx")


def run(model: Any, images: Any, folder: Path, shards: int = 4, **options: Any) -> ShardedPrediction:
    results = boxwright.ShardedResults(folder, options.pop("format", "parquet"), shards)
    return boxwright.predict_shards(model, images, results, **options)


def read(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.lock"}


def test_the_detections_of_predict(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "005.png").write_bytes(b"no image")
    result = run(model, photos, tmp_path / "out", threshold=0.2)
    assert [path.name for path in result.files] == [f"shard-0000{n}-of-00004.parquet" for n in range(4)]
    assert (result.num_images, result.num_unreadable, result.num_resumed) == (10, 1, 0)
    rows = read(tmp_path / "out")
    assert [row["image_id"] for row in rows] == list(range(1, 12))
    assert [row["file_name"] for row in rows] == [f"{n:03d}.png" for n in range(11)]
    assert [index for index, row in enumerate(rows) if row["error"] is not None] == [5]
    assert "005.png cannot be read as an image" in rows[5]["error"]
    assert rows[5]["detections"] == []
    assert result.unreadable is not None
    assert json.loads(result.unreadable.read_text()) == {"file_name": "005.png", "reason": rows[5]["error"]}
    expected = boxwright.predict(model, photos, threshold=0.2, on_error="skip")
    assert result.num_detections == expected.num_detections > 10
    assert result.best_score == expected.best_score
    for row in rows:
        ours = [{"file_name": row["file_name"], **one} for one in row["detections"]]
        theirs = detection_rows(row["file_name"], expected.detections.get(row["file_name"], []))  # type: ignore[arg-type]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert (one.pop("segmentation"), one.pop("sides_std")) == (None, None)
            assert one.pop("bbox") == pytest.approx(other.pop("bbox"))
            assert one == other


def test_coco_results_are_those_of_predict(model: Path, photos: Path, tmp_path: Path) -> None:
    result = run(model, photos, tmp_path / "out", format="coco")
    boxwright.predict(model, photos, coco=tmp_path / "one.json")
    rows = [row for path in result.files for row in json.loads(path.read_text())]
    assert rows == json.loads((tmp_path / "one.json").read_text())
    assert len(rows) == 22


def test_masks_and_drawings(photos: Path, tmp_path: Path) -> None:
    model = write_stand_in(tmp_path / "masks.onnx", masks="box")
    run(model, photos, tmp_path / "out", out=tmp_path / "drawn")
    boxwright.predict(model, photos, out=tmp_path / "expected")
    assert contents(tmp_path / "drawn") == contents(tmp_path / "expected")
    expected = detection_rows("", boxwright.predict(model, photos / "010.png").detections["010.png"])
    assert [one["segmentation"] for one in read(tmp_path / "out")[10]["detections"]] == [
        one["segmentation"] for one in expected
    ]


def test_a_detector_of_python(photos: Path, tmp_path: Path) -> None:
    run(detector := make_detector(), photos, tmp_path / "out", device=boxwright.ComputeOptions(precision="float32"))
    scores = [one["score"] for row in read(tmp_path / "out") for one in row["detections"]]
    expected = [d.scores for d in boxwright.predict(detector, photos).detections.values()]
    assert scores == pytest.approx(torch.cat(expected).tolist(), abs=1e-2)
    with torch.no_grad():
        detector.backbone.weight += 1  # type: ignore[operator]
    with pytest.raises(ValueError, match="its results are of another model: give another folder"):
        run(detector, photos, tmp_path / "out", device=boxwright.ComputeOptions(precision="float32"), resume=True)


def test_killed_before_any_change_of_a_file(model: Path, photos: Path, tmp_path: Path) -> None:
    """Every state in which the folder may be left is gone on from, to the same bytes."""
    (photos / "005.png").write_bytes(b"no image")
    with states_of(tmp_path / "out", tmp_path / "states") as watched:
        run(model, photos, tmp_path / "out")
    expected = contents(tmp_path / "out")
    assert len(watched.states) >= 2 * 4 + 2
    resumed = set()
    for state in watched.states:
        (state / "run.lock").unlink(missing_ok=True)
        result = run(model, photos, state, resume=True)
        assert contents(state) == expected
        assert (result.num_images, result.num_unreadable) == (10, 1)
        resumed.add(result.num_resumed)
    assert resumed == {0, 1, 2, 3, 4}
    assert run(model, photos, tmp_path / "out", resume=True).num_resumed == 4


def test_shards_that_were_damaged_are_made_anew(model: Path, photos: Path, tmp_path: Path) -> None:
    result = run(model, photos, tmp_path / "out")
    expected = contents(tmp_path / "out")
    result.files[0].unlink()
    result.files[1].write_bytes(result.files[1].read_bytes()[:-1])
    (tmp_path / "out" / "shard-00002-of-00004.done").write_text("{")
    assert run(model, photos, tmp_path / "out", resume=True).num_resumed == 1
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.5}, "threshold 0.3, now 0.5"),
        ({"batch_size": 2}, "batch_size null, now 2"),
        ({"format": "coco", "threshold": 0.3}, "format parquet, now coco"),
        ({"shards": 3}, "4 shards, now 3"),
        ({"device": boxwright.ComputeOptions(tiles=boxwright.TileOptions(size=64))}, "tiles null, now {"),
    ],
)
def test_other_options_are_refused(
    model: Path, photos: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(model, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/out: its results are of {message}")) as caught:
        run(model, photos, tmp_path / "out", resume=True, **change)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_other_images_and_models_are_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    run(model, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="there are results already: --resume goes on with them"):
        run(model, photos, tmp_path / "out")
    (photos / "003.png").write_bytes(png(gray(0.3, 20, 31)))
    with pytest.raises(ValueError, match="its results are of other images, or images that were changed since"):
        run(model, photos, tmp_path / "out", resume=True)
    (photos / "003.png").unlink()
    with pytest.raises(ValueError, match="its results are of 11 images, now 10: give another folder"):
        run(model, photos, tmp_path / "out", resume=True)
    draw(tmp_path / "more", 2)
    (tmp_path / "out" / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        run(model, photos, tmp_path / "out", resume=True)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"there are shards without manifest\.json"):
        run(model, photos, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out").items() < before.items()


@pytest.mark.parametrize("ids", [(5, 3), ("u", 3)])
def test_ids_of_a_manifest(model: Path, photos: Path, tmp_path: Path, ids: tuple[Any, Any]) -> None:
    rows = [{"path": f"{photos}/{n:03d}.png", "id": id_} for n, id_ in zip((1, 0), ids, strict=True)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(model, tmp_path / "list.jsonl", tmp_path / "out", shards=9)
    # A column has one type: of texts where one is.
    assert [row["image_id"] for row in read(tmp_path / "out")] == [*(ids if ids[0] == 5 else ("u", "3"))]
    if ids[0] == 5:
        result = run(model, tmp_path / "list.jsonl", tmp_path / "coco", format="coco")
        assert {row["image_id"] for path in result.files for row in json.loads(path.read_text())} == {5, 3}
        boxwright.predict(model, tmp_path / "list.jsonl", coco=tmp_path / "one.json")
        assert {row["image_id"] for row in json.loads((tmp_path / "one.json").read_text())} == {5, 3}
        return
    with pytest.raises(ValueError, match="ids of images in COCO's form are whole numbers"):
        run(model, tmp_path / "list.jsonl", tmp_path / "coco", format="coco")


def test_wrong_arguments(model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for images, options, message in (
        ([], {}, "no images: give paths"),
        ([gray(0.5)], {}, "images are paths and addresses here, not ndarray"),
        (photos, {"threshold": 2}, "threshold is between 0 and 1"),
        (photos, {"batch_size": 0}, "batch_size is at least 1"),
        (photos, {"engine": "spark"}, "engine is local or ray, not 'spark'"),
        (photos, {"shards": 0}, "shards is at least 1, not 0"),
        (photos, {"format": "csv"}, "results are written as parquet or coco, not 'csv'"),
        (photos, {"out": photos}, r"000\.png is one of the images, and drawing would overwrite it"),
        (tmp_path / "no", {}, "no: no such image or folder"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(model, images, out, **options)
    with pytest.raises(ValueError, match="is a file; give the name of a folder"):
        run(model, photos, model)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pyarrow: pip install 'boxwright\[volume\]', or give --format coco"):
        run(model, photos, out)
    assert not out.exists()
    assert run(model, photos, out, format="coco").num_images == 11


def test_a_folder_without_a_complete_shard_is_begun_anew(model: Path, photos: Path, tmp_path: Path) -> None:
    """Unless its manifest is that of somebody else."""
    result = run(model, photos, tmp_path / "out", threshold=0.5)
    for path in (tmp_path / "out").glob("shard-*"):
        path.unlink()
    assert run(model, photos, tmp_path / "out").num_images == result.num_images
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged, or no manifest of shards"):
        run(model, photos, tmp_path / "other", resume=True)
    assert (tmp_path / "other" / "manifest.json").read_text() == '{"name": "an app"}'


def test_the_manifest_goes_on_the_way(model: Path, photos: Path, tmp_path: Path) -> None:
    class Removes(Observer):
        @contextmanager
        def track(self, title: str) -> Iterator[Any]:  # noqa: ARG002
            yield lambda done, _: (tmp_path / "out" / "manifest.json").unlink() if done == 5 else None

    with pytest.raises(ValueError, match=r"manifest\.json is gone, or that of another run"):
        run(model, photos, tmp_path / "out", observer=Removes())
    assert sorted(contents(tmp_path / "out")) == ["shard-00000-of-00004.done", "shard-00000-of-00004.parquet"]


def test_files_of_others_stay(model: Path, photos: Path, tmp_path: Path) -> None:
    """Archives of images may have names like those of results, and be in the same folder."""
    (tmp_path / "out").mkdir()
    own = "shard-00003-of-00004.parquet.0123456789ab"
    others = {"shard-0001.tar", "shard-00000-of-00004.tar", "shard-00000-of-00004.json.orig"}
    for name in (own, f"{own}.unfinished", *others):
        (tmp_path / "out" / name).write_bytes(b"any")
    run(model, photos, tmp_path / "out")
    kept = {name for name, content in contents(tmp_path / "out").items() if content == b"any"}
    assert kept == others


def test_one_process_at_a_time(model: Path, photos: Path, tmp_path: Path) -> None:
    from boxwright.training.folder_lock import hold_folder

    with hold_folder(tmp_path / "out"), pytest.raises(ValueError, match="works here"):
        run(model, photos, tmp_path / "out")


def test_the_command(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "005.png").write_bytes(b"no image")
    command = ["predict", str(model), "photos", "--results", "out", "--shards", "2", "--threshold", "0.2"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == "13 objects in 10 images, in 2 shards in out\n"
    assert "note: 1 of 11 images could not be read: " in shown.err
    assert not (tmp_path / "predictions").exists()
    assert main([*command, "--resume"]) == 0
    assert capsys.readouterr().out == "13 objects in 10 images, in 2 shards in out, 2 of them from before\n"
    for wrong, message in (
        ([*command, "--json", "x.json"], "--json does not go with --results; see --format"),
        (["predict", str(model), "photos", "--resume"], "--resume is about --results: give --results DIR too"),
        ([*command, "--shards", "0"], "--shards is at least 1, not 0"),
        ([*command], "there are results already"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
    for path in photos.iterdir():
        path.write_bytes(b"")
    assert main([*command, "--results", "none"]) == 2
    assert "11 of 11 images could not be read" in capsys.readouterr().err


def kill_at_random(command: list[str], rng: random.Random, latest: float) -> bool:
    """Start a command and kill it; False where it ended before."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    manifest = Path(command[command.index("--results") + 1], "manifest.json")
    # From where it begins to write: importing torch takes most of the time until then.
    while time.monotonic() < end and process.poll() is None and not manifest.exists():
        time.sleep(0.01)
    try:
        process.wait(rng.uniform(0, latest))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def test_killed_at_random(model: Path, photos: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for index in range(300):
        os.symlink(photos / f"{index % 11:03d}.png", links / f"{index:03d}.png")
    run(model, links, tmp_path / "expected", shards=30)
    command = ["boxwright", "predict", str(model), str(links), "--results", str(tmp_path / "out"), "--shards", "30"]
    killed = kill_at_random([*command, "--resume"], random.Random(1), 0.4)
    result = run(model, links, tmp_path / "out", shards=30, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    assert result.num_resumed < 30 or not killed
    assert len({row["image_id"] for row in read(tmp_path / "out")}) == len(read(tmp_path / "out")) == 300


@pytest.mark.slow
def test_twenty_thousand_images(model: Path, photos: Path, tmp_path: Path) -> None:
    """Memory does not grow with the number of images, and ten kills change nothing."""
    peaks = {}
    for count in (2_000, 20_000):
        links = tmp_path / str(count)
        links.mkdir()
        for index in range(count):
            os.symlink(photos / f"{index % 11:03d}.png", links / f"{index:05d}.png")
        command = ["predict", str(model), str(links), "--results", str(tmp_path / f"out-{count}")]
        done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.splitlines()[-1])
    assert peaks[20_000] < 1.05 * peaks[2_000]
    rng = random.Random(2)
    command = ["boxwright", "predict", str(model), str(tmp_path / "20000"), "--results", str(tmp_path / "killed")]
    killed = [kill_at_random([*command, "--resume"], rng, 6.0) for _ in range(10)]
    run(model, tmp_path / "20000", tmp_path / "killed", shards=20, resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "out-20000")
    image_ids = np.array([row["image_id"] for row in read(tmp_path / "killed")])
    assert np.array_equal(image_ids, np.arange(1, 20_001))
    print(f"peaks {peaks} KB, {sum(killed)} kills of 10")
    shutil.rmtree(tmp_path / "killed")
