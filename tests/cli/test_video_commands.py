"""``boxwright predict`` of videos: what is typed, what is printed, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from boxwright.cli.main import main
from boxwright_runtime.video_stream import VideoStream
from drawn_videos import write_video
from stand_in_export import write_stand_in

Refused = Callable[[Sequence[str]], str]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def video(here: Path) -> str:
    """A video, and an exported file that sees one thing in it and a quarter of that."""
    write_stand_in(here / "model.onnx")
    write_video(here / "street.mp4", [i / 10 for i in range(12)], size=(64, 48))
    return "street.mp4"


def test_a_video_is_tracked_and_drawn(video: str, here: Path, capsys: Capture) -> None:
    command = ["predict", "model.onnx", video, "--threshold", "0.1", "--mot", "a.txt", "--coco", "a.json"]
    command += ["--line", "0,20,64,20", "--zone", "0,0,64,0,64,48,0,48", "--counts", "counts.json"]
    assert main(command) == 0
    drawn = "predictions/street.mp4"
    assert capsys.readouterr().out == (
        f"2 objects in 12 frames of 0:01 of street.mp4, drawn in {drawn} (MPEG-4 part 2), as MOT text in a.txt, in "
        "COCO's form in a.json\nline 1: right 0; left 0\nzone 1: entered 0; exited 0; inside 2\n"
    )
    assert len((here / "a.txt").read_text().splitlines()) == 24
    assert len(json.loads((here / "a.json").read_text())["annotations"]) == 24
    assert json.loads((here / "counts.json").read_text())["zones"][0]["inside"] == 2
    assert len(list(VideoStream(here / drawn))) == 12


def test_without_tracking_detections_are_counted(video: str, here: Path, capsys: Capture) -> None:
    assert main(["predict", "model.onnx", video, "--no-draw", "--json", "a.jsonl"]) == 0
    assert capsys.readouterr().out == "12 detections in 12 frames of 0:01 of street.mp4, as JSON lines in a.jsonl\n"
    rows = [json.loads(line) for line in (here / "a.jsonl").read_text().splitlines()]
    assert all("id" not in one for row in rows for one in row["objects"])
    assert not (here / "predictions").exists()


def test_the_best_score_is_told_where_nothing_reaches_the_threshold(video: str, capsys: Capture) -> None:
    assert main(["predict", "model.onnx", video, "--no-draw", "--threshold", "0.9"]) == 0
    line = capsys.readouterr().out
    assert line == "0 detections in 12 frames of 0:01 of street.mp4; the best score is 0.54, see --threshold\n"


def test_json_on_standard_output_is_nothing_but_json(video: str, here: Path) -> None:
    command = [sys.executable, "-m", "boxwright", "predict", "model.onnx", video, "--track", "--no-draw", "--json", "-"]
    with (here / "out.jsonl").open("w") as output:
        output.write("before\n")
        output.flush()
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=True)
    first, *lines = (here / "out.jsonl").read_text().splitlines()
    assert first == "before"
    assert [json.loads(line)["frame"] for line in lines] == list(range(12))
    assert done.stderr.startswith("1 object in 12 frames")


def test_ctrl_c_leaves_what_was_done(here: Path) -> None:
    write_stand_in(here / "model.onnx")
    write_video(here / "long.mkv", [i / 10 for i in range(5000)], size=(32, 32))
    command = [sys.executable, "-m", "boxwright", "predict", "model.onnx", "long.mkv", "--batch-size", "1"]
    command += ["--json", "-", "--mot", "a.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        begin = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    count = len(begin) + len(rest.splitlines())
    assert 20 <= count < 5000
    assert errors.endswith(
        f"stopped after {count:,} frames; what was done until then is written\nboxwright: interrupted\n"
    )
    assert len((here / "a.txt").read_text().splitlines()) == count
    assert len(list(VideoStream(here / "predictions" / "long.mp4"))) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x.png"], "videos are predicted one at a time"),
        (["--line", "1,2,3"], "--line: numbers as X1,Y1,X2,Y2, two for each point, not '1,2,3'"),
        (["--line", "1,2,3,4,5,6"], "--line has two points, X1,Y1,X2,Y2, not 3"),
        (["--line", "1,2,1,2"], "a line is from one point to another one"),
        (["--line", "a,b,c,d"], "--line: numbers as X1,Y1,X2,Y2, not 'a'"),
        (["--zone", "1,2,3,4"], "a zone has three corners or more, not 2"),
        (["--zone=-9,-9,-1,-9,-1,-1"], "zone 1 lies outside the frame of 64 x 48 pixels"),
        (["--max-lost", "0"], "a number of seconds above 0, not '0'"),
        (["--counts", "a.json", "--track"], "counts are over lines and zones"),
        (["--annotations", "a.json", "--coco", "b.json"], "--annotations is for images"),
        (["--results", "shards"], "--results is for images"),
        (["--out", "."], "street.mp4 is the video itself"),
        (["--mot", "."], "is a folder"),
        (["--sides-std"], "sides_std is of models"),
    ],
)
def test_what_is_refused(video: str, refused: Refused, options: list[str], message: str) -> None:
    assert message in refused(["predict", "model.onnx", video, *options])


def test_options_of_videos_are_not_for_images(video: str, refused: Refused) -> None:
    assert video
    for option in (["--track"], ["--no-draw"], ["--mot", "a.txt"], ["--max-lost", "1"]):
        assert f"{option[0]} is for videos, and there is none among x.png" in refused(
            ["predict", "model.onnx", "x.png", *option]
        )


@pytest.mark.parametrize(("name", "content"), [("gone.mp4", None), ("empty.mp4", b""), ("text.mkv", b"text" * 99)])
def test_broken_videos(video: str, here: Path, refused: Refused, name: str, content: bytes | None) -> None:
    assert video
    if content is not None:
        (here / name).write_bytes(content)
    line = refused(["predict", "model.onnx", name])
    assert line.startswith(f"{name}: {'no such video' if content is None else 'this video cannot'}")


def test_passwords_are_not_shown(video: str, refused: Refused) -> None:
    assert video
    line = refused(["predict", "model.onnx", "rtsp://me:secret@127.0.0.1:9/live"])
    assert "rtsp://127.0.0.1:9/live: this video cannot be read: Connection refused" in line
    assert "secret" not in line
