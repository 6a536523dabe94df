"""Streams of images through a detector: in order, read ahead, in bounded memory, and what cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boxwright.detector import Detector
from boxwright_runtime.images import read_image
from boxwright_runtime.streaming import MAX_WAITING, SkippedImage
from live_threads import list_threads
from passing_detector import FORMAT, Mean, Passes, gray, make_detector, png, scores


@pytest.fixture
def detector() -> Detector:
    return make_detector()


@given(
    shapes=st.lists(st.sampled_from([(10, 10), (20, 30), (40, 60), (30, 20)]), max_size=25),
    batch_size=st.integers(1, 4),
    bad=st.sets(st.integers(0, 24)),
)
@example(shapes=[(10, 10), (20, 30), (10, 10), (20, 30), (40, 60)], batch_size=2, bad=set())
@settings(max_examples=40, deadline=None)
def test_a_stream_is_in_order_whatever_the_sizes(shapes: list[tuple[int, int]], batch_size: int, bad: set[int]) -> None:
    backbone = Passes()
    detector = Detector(backbone, [], Mean(), categories=[], input_format=FORMAT)
    images: list[Any] = [gray(i / 25, *shape) for i, shape in enumerate(shapes)]
    for i in bad & set(range(len(images))):
        images[i] = b"broken"
    stream = detector.stream(iter(images), batch_size=batch_size, on_error="skip")
    good = [i for i in range(len(images)) if i not in bad]
    pairs = list(stream.items())
    assert [index for index, _ in pairs] == good
    assert scores([one for _, one in pairs]) == [pytest.approx(i / 25, abs=0.01) for i in good]
    assert [one.index for one in stream.skipped] == sorted(bad & set(range(len(images))))
    assert all(size <= batch_size for size, *_ in backbone.shapes)
    assert sum(size for size, *_ in backbone.shapes) == len(good)


def test_the_list_of_skipped_images_may_be_emptied_on_the_way(detector: Detector) -> None:
    images = [gray(0.3), b"no image", gray(0.7), b"no image", b"no image", gray(0.5)]
    stream = detector.stream(images, on_error="skip")
    sources = []
    for source, _ in stream.items():
        sources.append(source)
        stream.skipped.clear()
    assert sources == [0, 2, 5]


def test_skipped_images_are_reported(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    images: list[Any] = [
        gray(0.2),
        tmp_path / "nowhere.png",
        gray(0.4),
        str(tmp_path / "text.png"),
        b"broken",
        gray(0.6),
    ]
    stream = detector.stream(images, batch_size=2, on_error="skip")
    assert scores(list(stream)) == [0.2, 0.4, 0.6]
    assert [(one.index, one.path) for one in stream.skipped] == [
        (1, tmp_path / "nowhere.png"), (3, tmp_path / "text.png"), (4, None)
    ]  # fmt: skip
    assert "there is no image" in stream.skipped[0].reason
    assert isinstance(stream.skipped[2], SkippedImage)


def test_results_before_an_unreadable_image_come_before_its_error(detector: Detector, tmp_path: Path) -> None:
    images: list[Any] = [gray(0.2), gray(0.4, 60, 40), tmp_path / "nowhere.png"]
    stream = detector.stream(iter(images), batch_size=4)
    assert scores([next(stream), next(stream)]) == [0.2, 0.4]
    with pytest.raises(FileNotFoundError):
        next(stream)


def test_a_generator_is_read_as_far_as_is_needed(detector: Detector) -> None:
    read: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            read.append(len(read))
            yield gray(0.5)

    stream = detector.stream(endless(), batch_size=3)
    for count in (1, 2, 3, 4):
        next(stream)
        assert len(read) == (3 if count <= 3 else 6)


def test_a_rare_size_holds_back_only_so_much(detector: Detector) -> None:
    """One image of another size among very many: the memory for its followers is bounded."""
    read: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for i in range(200):
            read.append(i)
            yield gray(i / 255, *((60, 40) if i in (0, 100) else (40, 60)))

    ahead = []
    actual = []
    for done, one in enumerate(detector.stream(images(), batch_size=2)):
        ahead.append(len(read) - done)
        actual.append(one)
    assert scores(actual) == [pytest.approx(i / 255, abs=0.01) for i in range(200)]
    assert max(ahead) <= (MAX_WAITING + 1) * 2


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:02d}.png" for i in range(30)]
    for i, path in enumerate(paths):
        path.write_bytes(png(gray(i / 40, *((60, 40) if i % 7 == 0 else (40, 60)))))
    return paths


@pytest.mark.parametrize("batch_size", [1, 4])
def test_files_are_decoded_ahead_in_threads(
    detector: Detector, files: list[Path], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def observed(path: Path) -> np.ndarray:
        decoded.append(threading.current_thread().name)
        return read_image(path)

    monkeypatch.setattr("boxwright_runtime.images.read_image", observed)
    files[9].write_bytes(b"no image")
    files[20].unlink()
    stream = detector.stream(files, batch_size=batch_size, on_error="skip")
    ahead, actual = [], []
    for path, one in stream.items():
        actual.append((path, one.scores[0].item()))
        ahead.append(len(decoded) - len(actual))
    good = [(path, i / 40) for i, path in enumerate(files) if i not in (9, 20)]
    assert [path for path, _ in actual] == [path for path, _ in good]
    assert [score for _, score in actual] == pytest.approx([value for _, value in good], abs=0.005)
    assert [one.index for one in stream.skipped] == [9, 20]
    assert all(name.startswith("read-ahead") for name in decoded)
    assert 1 <= max(ahead) <= 9 + (MAX_WAITING + 1) * batch_size
    assert not list_threads("read-ahead")


@pytest.mark.parametrize("end", ["close", "drop", "error", "failed network"])
def test_a_stream_that_ends_early_leaves_no_thread(detector: Detector, files: list[Path], end: str) -> None:
    if end == "error":
        files[5].unlink()
    stream = detector.stream(files, batch_size=2)
    next(stream)
    if end == "close":
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)
    elif end == "error":
        with pytest.raises(FileNotFoundError):
            list(stream)
    elif end == "failed network":
        cast(Any, detector.head).decode = None
        with pytest.raises(TypeError):
            list(stream)
    del stream
    assert not list_threads("read-ahead")
