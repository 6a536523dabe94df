"""Results of videos as files: JSON lines, MOT text and COCO's form for videos, frame by frame."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

from boxwright.files import is_standard_output, replace_file
from boxwright.structures import Category
from boxwright.workflows.video_frames import PredictedFrame
from boxwright_runtime.answers import object_row


class FrameWriter:
    """Writer of a file of text, which is complete once the context ends.

    Args:
        path: of the file; standard output is written to as frames come.
    """

    def __init__(self, path: Path) -> None:
        self._is_live = is_standard_output(path)
        self._open = ExitStack()
        # A copy of the descriptor, which may be closed; opening its name would empty the file that it leads to.
        target = os.dup(1) if self._is_live else path
        self._file: IO[str] = self._open.enter_context(open(target, "w", encoding="utf-8"))  # noqa: SIM115 - the stack closes it

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                self.finish()

    def write(self, frame: PredictedFrame) -> None:
        """Write a frame."""
        self._file.write(self.lines(frame))
        if self._is_live:
            self._file.flush()

    def lines(self, frame: PredictedFrame) -> str:
        """Return the text of a frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write the end; most files have none."""
        return


class JsonLines(FrameWriter):
    """One line of JSON for each frame: its number from 0, its time in seconds, and its objects."""

    def lines(self, frame: PredictedFrame) -> str:
        """Return the line of a frame."""
        rows = [object_row(one) for one in frame.detections]
        if frame.ids is not None:
            rows = [{"id": one, **row} for one, row in zip(frame.ids, rows, strict=True)]
        return json.dumps({"frame": frame.number, "time": round(frame.time, 6), "objects": rows}) + "\n"


class MotText(FrameWriter):
    """The text of MOTChallenge: frame from 1, id, left, top, width, height, score, and three columns without a meaning.

    **Source**: Milan et al., "MOT16" (2016), table 5.
    """

    def lines(self, frame: PredictedFrame) -> str:
        """Return a line for each object of a frame."""
        assert frame.ids is not None
        lines = []
        for number, one in zip(frame.ids, frame.detections, strict=True):
            x1, y1, x2, y2 = one.box
            sides = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
            lines.append(f"{frame.number + 1},{number},{sides},{one.score:.4f},-1,-1,-1\n")
        return "".join(lines)


class CocoVideo(FrameWriter):
    """COCO's form with ``videos``, frames as ``images``, and ids of objects as ``instance_id`` and ``track_id``.

    Memory is bounded: annotations are written as they come, and images, which follow them, wait in a temporary file.

    **Source**: CocoVID of MMTracking; ``track_id`` is TAO's name.

    Args:
        path: of the file.
        name: of the video.
        categories: of the model.
    """

    def __init__(self, path: Path, name: str, categories: Sequence[Category]) -> None:
        super().__init__(path)
        self._name, self._categories = name, categories
        self._images = self._open.enter_context(TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115 - likewise
        self._num_images = self._num_annotations = 0
        self._file.write('{"annotations": [')

    def lines(self, frame: PredictedFrame) -> str:
        """Return the annotations of a frame."""
        height, width = frame.size
        self._num_images += 1
        image: dict[str, Any] = {"id": self._num_images, "video_id": 1, "frame_id": frame.number}
        image |= {"file_name": f"{self._name}/{frame.number + 1:06}.jpg", "width": width, "height": height}
        separator = ",\n" if self._num_images > 1 else "\n"
        self._images.write(separator + json.dumps({**image, "time": round(frame.time, 6)}))
        return "".join(map(self._annotation, frame.detections, frame.ids or [None] * len(frame.detections)))

    def finish(self) -> None:
        """Write the images, the video and the classes."""
        self._file.write('\n], "images": [')
        self._images.seek(0)
        while part := self._images.read(1 << 20):
            self._file.write(part)
        categories = [{"id": one.id, "name": one.name} for one in self._categories]
        rest = {"videos": [{"id": 1, "name": self._name}], "categories": categories}
        self._file.write("\n], " + json.dumps(rest)[1:] + "\n")

    def _annotation(self, one: Any, number: int | None) -> str:
        self._num_annotations += 1
        row: dict[str, Any] = {"id": self._num_annotations, "image_id": self._num_images, "video_id": 1, "iscrowd": 0}
        row |= {} if number is None else {"instance_id": number, "track_id": number}
        row |= object_row(one)
        del row["category_name"]
        row["area"] = row["bbox"][2] * row["bbox"][3]
        return (",\n" if self._num_annotations > 1 else "\n") + json.dumps(row)


class FileOfFrames:
    """A file that is written frame by frame.

    Args:
        path: of the file.
        open_writer: opens what writes it; its ``write`` takes frames.
    """

    def __init__(self, path: Path, open_writer: Callable[[Path], AbstractContextManager[Any]]) -> None:
        self.path, self.open_writer = path, open_writer


def write_files(files: Sequence[FileOfFrames], take_frames: Callable[[Callable[[PredictedFrame], None]], None]) -> None:
    """Write files frame by frame, each whole or not at all.

    Args:
        files: all of them.
        take_frames: is called with a function to call with every frame.
    """

    def write(left: Sequence[FileOfFrames], writers: Sequence[Any]) -> None:
        if not left:
            take_frames(partial(_write_all, writers))
            return
        first, rest = left[0], left[1:]

        def write_first(path: Path) -> None:
            with first.open_writer(path) as writer:
                write(rest, [*writers, writer])

        if is_standard_output(first.path):
            sys.stdout.flush()
            write_first(first.path)
        else:
            replace_file(first.path, write_first)

    write(files, [])


def _write_all(writers: Sequence[Any], frame: PredictedFrame) -> None:
    for one in writers:
        one.write(frame)
