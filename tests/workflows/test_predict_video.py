"""Videos through the library: what is written, counted and drawn, and what is left where something goes wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boxwright
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.training.interrupt import Interrupted
from boxwright.workflows.observer import Observer
from boxwright.workflows.streams import StreamOptions
from boxwright.workflows.video_frames import TrackOptions, VideoPrediction
from boxwright_runtime.video_stream import VideoStream
from boxwright_runtime.video_timing import Reconnection
from bright_square import make_bright_detector
from drawn_videos import write_video
from fake_camera import Camera, opener
from moving_square import SIZE, square_at, write_moving_square
from passing_detector import make_detector
from stand_in_export import write_stand_in

TIMES = [*(i / 20 for i in range(30)), *(1.5 + i / 5 for i in range(10))]
MIDDLE = boxwright.CountLine((64, 64), (64, 0))
"""Upward: its right is that of the frame."""

RIGHT_PART = boxwright.CountZone(((70, 0), (128, 0), (128, 64), (70, 64)))


class Listener(Observer):
    """Hears notes, and calls something after each frame."""

    def __init__(self, after: Any = print) -> None:
        self.notes: list[str] = []
        self.after = after

    def note(self, line: str) -> None:
        self.notes.append(line)

    @contextmanager
    def track(self, title: str) -> Iterator[Any]:  # noqa: ARG002
        yield lambda done, total: self.after(done)  # noqa: ARG005


@pytest.fixture
def detector() -> Detector:
    return make_bright_detector(64)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_moving_square(tmp_path / "square.mkv", TIMES)


def files_in(folder: Path) -> boxwright.VideoFiles:
    return boxwright.VideoFiles(folder / "a.jsonl", folder / "a.txt", folder / "a.json", folder / "counts.json")


def test_a_video_is_tracked_counted_drawn_and_listed(detector: Detector, video: Path, tmp_path: Path) -> None:
    tracking = boxwright.TrackOptions(lines=[MIDDLE], zones=[RIGHT_PART])
    listener = Listener()
    result = boxwright.predict_video(
        detector, video, track=tracking, out=tmp_path / "drawn", files=files_in(tmp_path), observer=listener
    )
    assert (result.num_frames, result.num_detections, result.num_tracks, listener.notes) == (40, 40, 1, [])
    assert result.seconds == pytest.approx(3.3, abs=0.002)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts == result.counts
    assert counts["lines"] == [{"points": [[64, 64], [64, 0]], "right": {"square": 1}, "left": {}}]
    assert {name: counts["zones"][0][name] for name in ("entered", "exited", "inside")} == {
        "entered": {"square": 1}, "exited": {}, "inside": 1,
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [one["frame"] for one in lines] == list(range(40))
    np.testing.assert_allclose([one["time"] for one in lines], TIMES, atol=0.0011)
    for one, time in zip(lines, TIMES, strict=True):
        (row,) = one["objects"]
        x1, y1, x2, y2 = square_at(time)
        np.testing.assert_allclose(row["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=2.1)
        assert {"id": 1, "category_id": 7, "category_name": "square"}.items() <= row.items()
    mot = np.loadtxt(tmp_path / "a.txt", delimiter=",")
    assert mot.shape == (40, 10)
    assert mot[:, 0].tolist() == list(range(1, 41))
    assert (mot[:, 1] == 1).all()
    np.testing.assert_allclose(mot[:, 2:6], [one["objects"][0]["bbox"] for one in lines], atol=0.006)
    assert result.drawn == tmp_path / "drawn" / "square.mp4"
    drawn = list(VideoStream(result.drawn))
    np.testing.assert_allclose([one.time for one in drawn], TIMES, atol=0.0011)
    assert {one.image.shape for one in drawn} == {(SIZE[1], SIZE[0], 3)}


def test_coco_video_is_read_by_a_reader_of_coco(detector: Detector, video: Path, tmp_path: Path) -> None:
    boxwright.predict_video(detector, video, track=True, files=boxwright.VideoFiles(coco=tmp_path / "a.json"))
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["videos"] == [{"id": 1, "name": "square"}]
    assert content["categories"] == [{"id": 7, "name": "square"}]
    assert [one["frame_id"] for one in content["images"]] == list(range(40))
    assert content["images"][3] == {
        "id": 4, "video_id": 1, "frame_id": 3, "file_name": "square/000004.jpg", "width": 128, "height": 64,
        "time": pytest.approx(0.15, abs=0.001),
    }  # fmt: skip
    assert [one["id"] for one in content["annotations"]] == list(range(1, 41))
    assert {one["image_id"] for one in content["annotations"]} == set(range(1, 41))
    assert {(one["track_id"], one["instance_id"], one["category_id"]) for one in content["annotations"]} == {(1, 1, 7)}
    one = content["annotations"][0]
    assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3])


@pytest.mark.parametrize("with_objects", [True, False])
def test_files_without_an_object_are_complete(detector: Detector, tmp_path: Path, with_objects: bool) -> None:
    times = [0.0, 0.1] if with_objects else [9.0, 9.1]  # it has left the frame by then
    video = write_moving_square(tmp_path / "a.mkv", times)
    files = boxwright.VideoFiles(tmp_path / "a.jsonl", tmp_path / "a.txt", tmp_path / "a.json")
    result = boxwright.predict_video(detector, video, track=True, files=files)
    assert result.num_detections == (2 if with_objects else 0)
    content = json.loads((tmp_path / "a.json").read_text())
    assert (len(content["images"]), len(content["annotations"])) == (2, result.num_detections)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "a.txt").read_text().splitlines()) == result.num_detections


def test_an_exported_file_and_a_detector_alike(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [i / 10 for i in range(12)], size=(64, 48))
    exported = write_stand_in(tmp_path / "model.onnx")
    for batch_size in (None, 5):
        frames = list(boxwright.stream_video(exported, video, track=True, threshold=0.1, batch_size=batch_size))
        assert [one.ids for one in frames] == [(1, 2)] * 12
        assert [one.detections.names for one in frames] == [["thing", "quarter"]] * 12
        assert [one.number for one in frames] == list(range(12))
        assert frames[0].image is None
    of_detector = list(boxwright.stream_video(make_detector(), video, threshold=0.1, keep_images=True))
    assert [one.ids for one in of_detector] == [None] * 12
    assert [len(one.detections) for one in of_detector] == [2] * 12
    assert of_detector[0].image is not None


def test_a_stop_leaves_what_was_done(detector: Detector, video: Path, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    listener, tracking = Listener(interrupt), TrackOptions(lines=[MIDDLE])
    with pytest.raises(Interrupted):
        boxwright.predict_video(
            detector, video, track=tracking, out=tmp_path / "drawn", files=files_in(tmp_path), batch_size=1,
            observer=listener,
        )  # fmt: skip
    count = len((tmp_path / "a.jsonl").read_text().splitlines())
    assert 7 <= count <= 8
    assert listener.notes == [f"stopped after {count} frames; what was done until then is written"]
    assert len(json.loads((tmp_path / "a.json").read_text())["images"]) == count
    assert len(np.loadtxt(tmp_path / "a.txt", delimiter=",")) == count
    assert len(list(VideoStream(tmp_path / "drawn" / "square.mp4"))) == count
    assert json.loads((tmp_path / "counts.json").read_text())["lines"][0]["right"] == {}


def test_where_it_fails_no_part_of_a_file_is_left(detector: Detector, video: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("older\n")

    def fail(done: int) -> None:
        if done == 5:
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        boxwright.predict_video(
            detector, video, track=TrackOptions(lines=[MIDDLE]), out=tmp_path / "drawn", files=files_in(tmp_path),
            observer=Listener(fail),
        )  # fmt: skip
    assert (tmp_path / "a.txt").read_text() == "older\n"
    assert sorted(one.name for one in tmp_path.rglob("*") if one.is_file()) == ["a.txt", "square.mkv"]


def test_a_truncated_file_is_told(detector: Detector, tmp_path: Path) -> None:
    whole = write_moving_square(tmp_path / "a.mkv", [i / 30 for i in range(90)])
    part = tmp_path / "part.mkv"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    listener = Listener()
    result = boxwright.predict_video(detector, part, observer=listener)
    assert 20 < result.num_frames < 70
    assert any("part.mkv is truncated: it ends at" in note for note in listener.notes)


def test_live_frames_are_predicted_as_they_come(detector: Detector) -> None:
    camera = Camera([i / 10 for i in range(30)])
    video = VideoStream("rtsp://x", open_video=opener(camera), reconnection=Reconnection(attempts=0))
    assert camera.given.wait(10)
    options, compute = StreamOptions(), ComputeOptions.of("cpu")
    frames = VideoPrediction(detector, video, compute, threshold=0.3, options=options, tracking=TrackOptions())
    assert [one.number for one in frames] == [26, 27, 28, 29]
    assert frames.video.dropped == 26


def test_an_end_ahead_of_time_ends_the_thread(detector: Detector, video: Path) -> None:
    frames = boxwright.stream_video(detector, video, keep_images=True)
    assert next(frames).number == 0
    frames.close()
    assert list(frames) == []
    assert not frames.video._thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold is between 0 and 1"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"track": TrackOptions(max_lost=0.0)}, "max_lost is a number of seconds above 0"),
        ({"files": boxwright.VideoFiles(mot="a.txt")}, "track them too"),
        ({"files": boxwright.VideoFiles(counts="a.json"), "track": True}, "counts are over lines and zones"),
        ({"track": TrackOptions(lines=[boxwright.CountLine((200, 0), (200, 9))])}, "line 1 lies outside the frame"),
        ({"threshold": "tuned"}, "were not tuned"),
    ],
)
def test_arguments_out_of_range(detector: Detector, video: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.predict_video(detector, video, **options)


def test_a_drawing_does_not_overwrite_the_video(detector: Detector, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [0, 0.1])
    before = video.read_bytes()
    with pytest.raises(ValueError, match="is the video itself"):
        boxwright.predict_video(detector, video, out=tmp_path)
    assert video.read_bytes() == before


def test_classifiers_and_images_are_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [0, 0.1])
    classifier = write_stand_in(tmp_path / "model.onnx", task="classification")
    with pytest.raises(ValueError, match="videos are for detectors, and this model is for classification"):
        boxwright.predict_video(classifier, video)
    with pytest.raises(ValueError, match=r"a\.mp4 is a video, and predict is for images: take predict_video"):
        boxwright.predict(make_detector(), video)
