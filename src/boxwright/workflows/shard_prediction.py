"""Prediction of shards: the same work wherever it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.drawing import DrawingQueue, Drawings
from boxwright.sources.image_list import ImageList
from boxwright.structures import Category
from boxwright.workflows.exported import to_tensors
from boxwright.workflows.models import load_predictor
from boxwright.workflows.named_images import drawing_name
from boxwright.workflows.observer import Silent
from boxwright.workflows.shard_files import ShardWriter, write_coco, write_parquet
from boxwright.workflows.shard_folder import ShardFolder, ShardRecord
from boxwright.workflows.streams import StreamOptions, prepare_predictor, stream_prepared
from boxwright_runtime import Runtime
from boxwright_runtime.answers import select_answered, select_drawn
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.streaming import ImageInput, SkippedImage, StreamedResult
from boxwright_runtime.tiled_streaming import scale_boxes

_WRITERS = {"parquet": write_parquet, "coco": write_coco}


@dataclass(frozen=True)
class Shard:
    """Images whose results go into one file.

    Args:
        number: of the shard.
        first: index of its first image among all.
        images: of the shard.
    """

    number: int
    first: int
    images: ImageList


@dataclass(frozen=True)
class ShardJob:
    """All that a process has to know to predict shards; it travels to other machines.

    Args:
        model: as for ``predict``.
        folder: of the results.
        compute: device, precision and tiles.
        threshold: least score; or that of each class, by its label.
        batch_size: images at a time, at most.
        numbering: ids of images: ``index`` from 1, ``numbers`` or ``texts`` of a manifest.
        drawings: nothing is drawn where None.
        trusted: modules that may be imported for parts outside Boxwright.
        overrides: changes of the model's recipe.
    """

    model: str | Path | Detector
    folder: ShardFolder
    compute: ComputeOptions
    threshold: float | tuple[float, ...]
    batch_size: int | None = None
    numbering: str = "index"
    drawings: Drawings | None = None
    trusted: Collection[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def load(self, *, threads: int) -> Detector | Runtime:
        """Load the model in another process; what there is to note of it was noted where the work began.

        Args:
            threads: of an exported file, which otherwise takes as many as its runtime likes.
        """
        is_exported = not isinstance(self.model, Detector) and is_exported_name(self.model)
        model = Runtime(cast(Path, self.model), threads=threads) if is_exported else self.model
        return load_predictor(
            model, device=self.compute, trusted=self.trusted, observer=Silent(), overrides=self.overrides
        )


class ShardPredictor:
    """Predicts shards, one after the other, with a model that is prepared once.

    Args:
        job: what there is to do.
        predictor: of the job.
    """

    def __init__(self, job: ShardJob, predictor: Detector | Runtime) -> None:
        self.job, self.task = job, predictor.task
        self.categories: Sequence[Category] = (
            predictor.metadata.categories if isinstance(predictor, Runtime) else predictor.categories
        )
        self._predictor = prepare_predictor(predictor, job.compute)

    def predict(self, shard: Shard, tell: Callable[[int], None] = lambda _: None) -> ShardRecord:
        """Predict a shard and write its file.

        Args:
            shard: with its images.
            tell: called with the number of images that are done, after each.

        Raises:
            ValueError: something cannot be written, or the model fails.
        """
        return self.job.folder.finish_shard(shard.number, lambda path: self._write(shard, path, tell))

    def _write(self, shard: Shard, path: Path, tell: Callable[[int], None]) -> ShardRecord:
        job = self.job
        options = StreamOptions(job.batch_size, "skip", job.drawings is not None)
        write = _WRITERS[job.folder.manifest.options["format"]]
        with ExitStack() as stack:
            stream = stack.enter_context(
                closing(stream_prepared(self._predictor, _Sources(shard.images), job.compute, options))
            )
            writer = stack.enter_context(write(path, self.categories, has_text_ids=job.numbering == "texts"))
            queue = None if job.drawings is None else stack.enter_context(DrawingQueue(job.drawings.style))
            taker = _Taker(self, shard, writer, queue)
            for one in _with_skipped(stream.results(), stream.skipped):
                if isinstance(one, SkippedImage):
                    taker.skip(one)
                else:
                    taker.take(one)
                tell(one.index + 1)
        return ShardRecord("", taker.num_images, taker.num_detections, taker.best_score, 0, taker.unreadable)


class _Taker:
    """Takes what comes of the images of one shard."""

    def __init__(self, of: ShardPredictor, shard: Shard, writer: ShardWriter, queue: DrawingQueue | None) -> None:
        self._of, self._shard, self._writer, self._queue = of, shard, writer, queue
        self.num_images = self.num_detections = 0
        self.best_score: float | None = None
        self.unreadable: list[tuple[str, str]] = []

    def take(self, one: StreamedResult) -> None:
        """Write and draw the detections of an image."""
        detections, job = to_tensors(one.detections), self._of.job
        if len(detections):
            self.best_score = max(self.best_score or 0.0, detections.scores.max().item())
        above = select_answered(detections, job.threshold, self._of.task)
        drawn = select_drawn(above, self._of.task)
        name = self._shard.images.names[one.index]
        self._writer.write(self._number(one.index), name, above)
        self.num_images += 1
        self.num_detections += len(above)
        if self._queue is not None and job.drawings is not None and one.image is not None:
            target = Path(job.drawings.folder, drawing_name(name))
            self._queue.draw(one.image, scale_boxes(drawn, one.image_scale), target)

    def skip(self, one: SkippedImage) -> None:
        """Write that an image could not be read."""
        name = self._shard.images.names[one.index]
        self._writer.skip(self._number(one.index), name, one.reason)
        self.unreadable.append((name, one.reason))

    def _number(self, index: int) -> int | str:
        if self._of.job.numbering == "index":
            return self._shard.first + index + 1
        given = self._shard.images.ids[index]
        return int(given) if self._of.job.numbering == "numbers" else given


class _Sources(Sequence[ImageInput]):
    """Sources of images, each made when it is its turn."""

    def __init__(self, images: ImageList) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index].source


def _with_skipped(
    results: Iterator[StreamedResult], skipped: list[SkippedImage]
) -> Iterator[StreamedResult | SkippedImage]:
    """Give results, and the images that were skipped between them, in the order of the input."""
    waiting: deque[SkippedImage] = deque()
    for one in results:
        waiting.extend(skipped)
        skipped.clear()
        while waiting and waiting[0].index < one.index:
            yield waiting.popleft()
        yield one
    yield from waiting
    yield from skipped
