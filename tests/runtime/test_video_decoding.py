"""Videos decoded: times, sizes, rotation, truncated and broken files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from boxwright_runtime.video_decoding import OpenVideo, turn_upright, video_errors
from boxwright_runtime.video_names import is_video, show_source, video_stem
from boxwright_runtime.video_stream import VideoStream
from drawn_videos import CORNERS, corners_of, turn_file, write_video

VARIABLE = [*(i / 30 for i in range(10)), *(1 / 3 + i / 10 for i in range(10)), 1.9, 1.901]
A, B, C, D = CORNERS


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("b.mkv", "ffv1")])
def test_times_are_those_of_the_file(tmp_path: Path, name: str, codec: str) -> None:
    stream = VideoStream(write_video(tmp_path / name, VARIABLE, codec=codec))
    frames = list(stream)
    np.testing.assert_allclose([one.time for one in frames], VARIABLE, atol=0.0011)
    assert [one.number for one in frames] == list(range(22))
    assert (stream.damaged, stream.dropped, stream.early_end, stream.is_live) == (0, 0, None, False)


@pytest.mark.parametrize("size", [(97, 65), (1, 1), (33, 2), (64, 48)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = list(VideoStream(write_video(tmp_path / "a.mkv", [0, 0.1], size=size, codec="ffv1")))
    assert [one.image.shape for one in frames] == [(size[1], size[0], 3)] * 2
    assert frames[0].image.dtype == np.uint8


def test_the_first_frame_is_at_zero(tmp_path: Path) -> None:
    stream = VideoStream(write_video(tmp_path / "late.mkv", [5.0, 5.5, 6.0]))
    frames = list(stream)
    np.testing.assert_allclose([one.time for one in frames], [0, 0.5, 1.0], atol=0.0011)
    assert stream.early_end is None


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((1, 0, 0, 1), [A, B, C, D]),
        ((0, 1, -1, 0), [C, A, D, B]),
        ((-1, 0, 0, -1), [D, C, B, A]),
        ((0, -1, 1, 0), [B, D, A, C]),
        ((-1, 0, 0, 1), [B, A, D, C]),
        ((1, 0, 0, -1), [C, D, A, B]),
        ((0, 1, 1, 0), [A, C, B, D]),
        ((0, -1, -1, 0), [D, B, C, A]),
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, int, int, int], corners: list[int]) -> None:
    video = write_video(tmp_path / "a.mp4", [0, 0.1, 0.2])
    image = list(VideoStream(turn_file(video, tmp_path / "turned.mp4", matrix)))[1].image
    assert corners_of(image) == corners
    assert image.shape == ((65, 97, 3) if matrix[0] else (97, 65, 3))
    assert image.flags.c_contiguous


def test_a_frame_without_a_matrix_stays_as_it_is() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    assert turn_upright(image, None) is image


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.avi", "mjpeg")])
def test_of_a_truncated_file_there_is_what_could_be_decoded(tmp_path: Path, name: str, codec: str) -> None:
    whole = write_video(tmp_path / name, [i / 30 for i in range(90)], codec=codec)
    content = whole.read_bytes()
    part = tmp_path / f"part{whole.suffix}"
    part.write_bytes(content[: len(content) * 6 // 10])
    stream = VideoStream(part)
    count = len(list(stream))
    assert 35 <= count <= 80
    assert stream.early_end is not None
    assert stream.early_end.startswith("it ends at")
    assert stream.early_end.endswith("of 3.00 s")
    complete = VideoStream(whole)
    assert len(list(complete)) == 90
    assert complete.early_end is None


def test_damage_in_the_middle_is_counted(tmp_path: Path) -> None:
    content = bytearray(write_video(tmp_path / "a.mp4", [i / 30 for i in range(60)]).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).integers(0, 256, 300, dtype=np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(content)
    stream = VideoStream(tmp_path / "damaged.mp4")
    assert 30 <= len(list(stream)) <= 60
    assert stream.damaged >= 1


@pytest.mark.parametrize("content", [b"", b"hello" * 100])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    with pytest.raises(ValueError, match=r"a\.mp4: this video cannot be read: Invalid data"):
        OpenVideo(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match=r"b\.mp4: no such video"):
        OpenVideo(tmp_path / "b.mp4")


def test_sound_alone(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="there is no video in it"):
        OpenVideo(tmp_path / "a.mkv")


def test_an_address_that_nobody_answers() -> None:
    pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    with pytest.raises(ValueError, match=r"^rtsp://127\.0\.0\.1:9/x: this video cannot be read: Connection refused$"):
        OpenVideo("rtsp://me:secret@127.0.0.1:9/x")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'boxwright\[video\]'"):
        OpenVideo("a.mp4")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.MP4", True), ("dir/b.mkv", True), ("rtsp://camera/1", True), ("RTSP://u:p@camera/1", True),
        ("https://host/a", True), ("/dev/video0", True), ("/dev/video", False), ("a.jpg", False), ("a.gif", False),
        ("mp4", False), ("file:///a.jpg", False), ("", False), ("/dev/null", False),
        ("https://host/a.JPG?size=2", False), ("http://host/photos.zip", False), ("http://host/live", True),
    ],
)  # fmt: skip
def test_names_of_videos(source: str, expected: bool) -> None:
    assert is_video(source) == expected


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "images.mp4").mkdir()
    assert not is_video(tmp_path / "images.mp4")


@pytest.mark.parametrize(
    ("source", "shown", "stem"),
    [
        ("rtsp://me:secret@cam:554/live/1?key=2", "rtsp://cam:554/live/1?key=2", "cam_554_live_1"),
        ("rtsp://cam", "rtsp://cam", "cam"),
        ("/dev/video0", "/dev/video0", "video0"),
        ("dir/night 1.mp4", "dir/night 1.mp4", "night 1"),
        ("http:///", "http:///", "stream"),
    ],
)
def test_names_for_people_and_files(source: str, shown: str, stem: str) -> None:
    assert show_source(source) == shown
    assert video_stem(source) == stem


@pytest.mark.parametrize(
    ("name", "line"),
    [("ExitError", "nothing came for 10 s"), ("EOFError", "End of file"), ("HTTPNotFoundError", "gone")],
)
def test_every_error_of_ffmpeg_is_a_line(name: str, line: str) -> None:
    av = pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    expected = pytest.raises(ValueError, match=f"^rtsp://x/1: this video cannot be read: {line}$")
    with expected, video_errors("rtsp://me:secret@x/1"):
        raise getattr(av.error, name)(1, line)
    with pytest.raises(ZeroDivisionError), video_errors("a.mp4"):
        raise ZeroDivisionError
