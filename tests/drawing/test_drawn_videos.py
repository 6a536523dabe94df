"""Frames of drawn videos: ids, trails, lines and zones; and the files that they are written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxwright.drawing.colors import class_color
from boxwright.drawing.style import DrawingStyle
from boxwright.drawing.tracks import Trails, draw_tracked
from boxwright.drawing.video_file import VideoFile
from boxwright.structures import Category
from boxwright.tracking.counting import CountLine, CountZone, CrossingCounts
from boxwright_runtime import Detections
from boxwright_runtime.video_stream import VideoStream
from drawn_videos import corners_of, draw_frame

SIZE = (300, 200)
NO_LABELS = DrawingStyle(labels="none")


def gray() -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), 90, dtype=np.uint8)


def one_object(x: float) -> Detections:
    boxes = np.array([[x - 20, 80.0, x + 20, 120]])
    return Detections(boxes, np.array([0.9]), np.array([0]), None, (Category(1, "car"),))


def count_color(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == np.array(color)).all(2).sum())


def test_objects_have_a_color_and_a_trail_by_their_id() -> None:
    trails = Trails()
    for step in range(11):
        trails.update(step / 10, [3], one_object(50 + 20 * step).boxes)
    drawn = draw_tracked(gray(), one_object(250), [3], trails=trails, counts=CrossingCounts(), style=NO_LABELS)
    assert drawn.shape == (200, 300, 3)
    color = class_color(2)
    assert (drawn[100, 60:220] == np.array(color)).all()
    assert (drawn[100, :49] == 90).all()
    # Beside the trail, the box alone.
    assert count_color(drawn[:, 228:], color) > 100
    assert count_color(drawn[:95, :225], color) == 0


def test_trails_are_two_seconds_long_and_end() -> None:
    trails = Trails()
    for step in range(40):
        trails.update(step / 10, [1], one_object(step).boxes)
    assert [x for x, _ in trails.of(1)] == [float(step) for step in range(19, 40)]
    trails.update(5.85, [2], one_object(9).boxes)
    assert (trails.of(1), len(trails)) == ([(39.0, 100.0)], 2)
    trails.update(6.0, [], np.empty((0, 4)))
    assert (trails.of(1), len(trails)) == ([], 1)


def test_lines_and_zones_are_drawn_with_their_counts() -> None:
    counts = CrossingCounts([CountLine((10, 150), (290, 150))], [CountZone(((100, 40), (200, 40), (150, 90)))])
    nothing = Detections(np.empty((0, 4)), np.empty(0), np.empty(0, dtype=np.int64), None, (Category(1, "car"),))
    drawn = draw_tracked(gray(), nothing, [], trails=Trails(), counts=counts, style=NO_LABELS)
    assert (drawn[150, 200:290] == 255).all()
    assert (drawn[40, 150:200] == 255).any()
    assert (drawn[20:30, 250:] == 90).all()
    without = draw_tracked(gray(), nothing, [], trails=Trails(), counts=CrossingCounts(), style=NO_LABELS)
    assert (without == 90).all()


@pytest.mark.parametrize("labels", ["full", "none"])
def test_the_size_of_a_frame_stays(labels: str) -> None:
    style = DrawingStyle(labels=labels, legend=True)  # type: ignore[arg-type]
    for ids in (None, [1]):
        drawn = draw_tracked(gray(), one_object(150), ids, trails=Trails(), counts=CrossingCounts(), style=style)
        assert drawn.shape == (200, 300, 3)
        assert (count_color(drawn[:80], class_color(0)) > 100) == (labels == "full")


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (97, 65), (64, 48)])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_video_has_the_times_and_pixels_that_were_written(
    tmp_path: Path, size: tuple[int, int], container: str
) -> None:
    pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    times = [0.0, 0.033, 0.066, 0.5, 0.5, 2.0]
    with VideoFile(tmp_path / "a.unfinished", container, 29.97) as file:
        for number, time in enumerate(times):
            file.write(time, draw_frame(number, size))
    frames = list(VideoStream(tmp_path / "a.unfinished"))
    np.testing.assert_allclose([one.time for one in frames], [0, 0.033, 0.066, 0.5, 0.501, 2.0], atol=1e-9)
    assert {one.image.shape for one in frames} == {(size[1], size[0], 3)}
    if min(size) > 40:
        assert corners_of(frames[-1].image) == [40, 100, 160, 220]


def test_a_frame_of_another_size_is_resized(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    with VideoFile(tmp_path / "a.mkv", "matroska", 10.0) as file:
        file.write(0.0, draw_frame(0, (64, 48)))
        file.write(0.1, draw_frame(0, (128, 96)))
    assert [corners_of(one.image) for one in VideoStream(tmp_path / "a.mkv")] == [[40, 100, 160, 220]] * 2
    assert VideoStream(tmp_path / "a.mkv").rate == pytest.approx(10)


def test_no_encoder_of_the_gpl_is_used(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    with VideoFile(tmp_path / "a.mp4", "mp4", 10.0) as file:
        file.write(0.0, draw_frame(0, (64, 48)))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
