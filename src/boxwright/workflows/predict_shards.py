"""Prediction of any number of images, in shards: each a file of results, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from boxwright.data.image_check import ProgressCallback
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.drawing import Drawings
from boxwright.files import check_folder
from boxwright.sources.image_list import ImageList, collect_images, find_repeated
from boxwright.structures import Task
from boxwright.training.folder_lock import hold_folder
from boxwright.workflows.model_hash import hash_model
from boxwright.workflows.models import load_predictor
from boxwright.workflows.named_images import drawing_name
from boxwright.workflows.observer import Observer
from boxwright.workflows.predict import check_prediction
from boxwright.workflows.shard_files import import_parquet
from boxwright.workflows.shard_folder import ShardedResults, ShardFolder, make_manifest
from boxwright.workflows.shard_prediction import Shard, ShardJob, ShardPredictor
from boxwright_runtime import Runtime
from boxwright_runtime.streaming import Threshold

ShardEngine = Literal["local", "ray"]

RunShards = Callable[[Sequence[Shard], Callable[[int], None]], None]
"""Predicts shards; the function is called with the number of images that are done beside those of earlier runs."""


@dataclass(frozen=True)
class ShardedPrediction:
    """Files of a sharded prediction, and counts of what is in them.

    Args:
        files: of results, in the order of the images.
        num_images: that were predicted, by this run and those that it resumed.
        num_detections: in all files.
        num_unreadable: images that could not be read.
        num_resumed: shards that were complete before.
        unreadable: list of the images that could not be read, as JSON lines; None where all could.
        best_score: highest score of all, also below the threshold; None where there was no detection at all.
        task: of the model.
        threshold: least score of the results; of each class, by its label, where they were tuned.
    """

    files: tuple[Path, ...]
    num_images: int
    num_detections: int
    num_unreadable: int
    num_resumed: int
    unreadable: Path | None
    best_score: float | None
    task: Task
    threshold: float | tuple[float, ...]


def predict_shards(
    model: str | Path | Detector | Runtime,
    images: str | Path | Iterable[str | Path],
    results: str | Path | ShardedResults,
    *,
    resume: bool = False,
    engine: ShardEngine = "local",
    threshold: Threshold | None = None,
    out: str | Path | Drawings | None = None,
    batch_size: int | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ShardedPrediction:
    """Detect objects in any number of images, with results in files and none in memory.

    A run that was ended at any moment goes on with ``resume``: shards that are complete stay, all others are predicted
    from their first image. Images that cannot be read are listed.

    Args:
        model: as for ``predict``.
        images: paths and addresses of images, folders, archives and lists, and globs.
        results: folder for the files, and their form and number where it is ``ShardedResults``.
        resume: go on in a folder with results of the same images, model and options; begin where there are none.
        engine: ``local`` predicts here; ``ray`` on every device of a Ray cluster, whose machines see images, model and
            results under the same paths.
        threshold: as for ``predict``; where None 0.3, and 0 in COCO's form.
        out: as for ``predict``.
        batch_size: as for ``predict``.
        device: as for ``predict``.
        trusted: as for ``predict``.
        observer: as for ``predict``.
        overrides: as for ``predict``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no model, no images, or an argument is out of range; the folder has other results, or is in use.
    """
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    target = results if isinstance(results, ShardedResults) else ShardedResults(results)
    threshold = (0.0 if target.format == "coco" else 0.3) if threshold is None else threshold
    _check(target, engine, threshold, batch_size)
    inputs = collect_images(_list_texts(images), observer.note)
    drawings = _check_drawings(out, inputs.images)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    chosen = predictor.thresholds() if threshold == "tuned" else threshold
    numbering = _number(inputs.images, target, predictor.task)
    options = _describe_options(target, chosen, batch_size, compute)
    num_images, num_shards = len(inputs.images), target.count_shards(len(inputs.images))
    manifest = make_manifest(num_images, num_shards, inputs.sha256, hash_model(predictor), options)
    folder = ShardFolder(Path(target.folder).absolute(), manifest)
    changes = dict(overrides or {})
    job = ShardJob(_travel(model), folder, compute, chosen, batch_size, numbering, drawings, tuple(trusted), changes)
    with hold_folder(folder.path, observer.note):
        folder.begin(resume=resume)
        run = _choose_engine(engine, job, predictor, observer)
        with observer.track("predicting") as progress:
            num_resumed = _run_pending(job, inputs.images, run, progress)
        return _summarize(job, predictor.task, num_resumed)


def _check(target: ShardedResults, engine: str, threshold: Threshold, batch_size: int | None) -> None:
    check_prediction(threshold, batch_size)
    if engine not in get_args(ShardEngine):
        raise ValueError(f"engine is local or ray, not {engine!r}")
    if target.format == "parquet":
        import_parquet()
    check_folder(Path(target.folder))


def _list_texts(images: str | Path | Iterable[str | Path]) -> list[str]:
    listed = [images] if isinstance(images, str | Path) else list(images)
    for one in listed:
        if not isinstance(one, str | Path):
            raise ValueError(
                f"images are paths and addresses here, not {type(one).__name__}; for images in memory, see "
                "`Detector.stream`"
            )
    if not listed:
        raise ValueError("no images: give paths")
    return [str(one) for one in listed]


def _describe_options(
    target: ShardedResults, threshold: float | tuple[float, ...], batch_size: int | None, compute: ComputeOptions
) -> dict[str, Any]:
    """List all options that results depend on, by the names that they have on the command line."""
    values = asdict(compute)
    tiles = values.pop("tiles")
    return {"format": target.format, "threshold": threshold, "batch_size": batch_size, **values, "tiles": tiles}


def _number(images: ImageList, target: ShardedResults, task: Task) -> str:
    """Choose the ids of images."""
    if target.format == "coco" and task != "detection":
        raise ValueError(f"COCO's results are of detectors, and this model is for {task}: take format parquet")
    if not images.has_ids:
        return "index"
    if images.has_whole_ids:
        return "numbers"
    if target.format == "coco":
        raise ValueError("ids of images in COCO's form are whole numbers, and some of the manifest are texts")
    return "texts"


def _check_drawings(out: str | Path | Drawings | None, images: ImageList) -> Drawings | None:
    """Make sure that drawing overwrites no image, and that each has a drawing of its own."""
    if out is None:
        return None
    drawings = Drawings(out) if isinstance(out, str | Path) else out
    folder = Path(drawings.folder).absolute()
    check_folder(folder)
    targets = [str(folder / drawing_name(name)) for name in images.names]
    if (repeated := find_repeated(targets)) is not None:
        raise ValueError(f"two images would be drawn to {repeated}; predict them one after the other")
    if (repeated := find_repeated([*targets, *images.locations])) is not None:
        raise ValueError(f"{repeated} is one of the images, and drawing would overwrite it; give another --out")
    return replace(drawings, folder=folder)


def _travel(model: str | Path | Detector | Runtime) -> str | Path | Detector:
    """Return a model so that another process, in another folder, can load it."""
    if isinstance(model, Runtime):
        return Path(model.path).absolute()
    if isinstance(model, Detector):
        return model
    return Path(model).absolute() if Path(model).exists() else model


def _choose_engine(engine: ShardEngine, job: ShardJob, predictor: Detector | Runtime, observer: Observer) -> RunShards:
    if engine == "local":
        return _LocalEngine(job, predictor)
    from boxwright.workflows.ray_engine import RayEngine

    return RayEngine(job, observer)


def _run_pending(job: ShardJob, images: ImageList, run: RunShards, progress: ProgressCallback) -> int:
    """Predict the shards that are not complete; return the number of those that were."""
    manifest, pending = job.folder.manifest, []
    for number in range(manifest.num_shards):
        if job.folder.read_record(number) is None:
            pending.append(number)
    shards = _Shards(job, images, pending)
    before = manifest.num_images - sum(len(manifest.range_of(number)) for number in pending)
    if pending:
        run(shards, lambda done: progress(before + done, manifest.num_images))
    return manifest.num_shards - len(pending)


class _Shards(Sequence[Shard]):
    """Shards that are to be predicted; the columns of each are made when it is its turn."""

    def __init__(self, job: ShardJob, images: ImageList, numbers: Sequence[int]) -> None:
        self._job, self._images, self._numbers = job, images, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        number = self._numbers[index]
        rows = self._job.folder.manifest.range_of(number)
        return Shard(number, rows.start, self._images[rows.start : rows.stop])


class _LocalEngine:
    """Predicts shards here, one after the other.

    Args:
        job: what there is to do.
        predictor: of the job.
    """

    def __init__(self, job: ShardJob, predictor: Detector | Runtime) -> None:
        self._predictor = ShardPredictor(job, predictor)

    def __call__(self, shards: Sequence[Shard], tell: Callable[[int], None]) -> None:
        """Predict shards."""
        before = 0
        for shard in shards:
            self._predictor.predict(shard, partial(_tell_all, tell, before))
            before += len(shard.images)


def _tell_all(tell: Callable[[int], None], before: int, done: int) -> None:
    tell(before + done)


def _summarize(job: ShardJob, task: Task, num_resumed: int) -> ShardedPrediction:
    folder = job.folder
    folder.clean()
    num_images = num_detections = num_unreadable = 0
    best_score: float | None = None
    for number in range(folder.manifest.num_shards):
        record = folder.read_record(number)
        if record is None:
            name = folder.results_path(number)
            raise ValueError(f"{name} was changed while others were written: --resume makes it anew")
        num_images += record.num_images
        num_detections += record.num_detections
        num_unreadable += len(record.unreadable)
        if record.best_score is not None:
            best_score = max(best_score or 0.0, record.best_score)
    return ShardedPrediction(
        files=tuple(map(folder.results_path, range(folder.manifest.num_shards))),
        num_images=num_images,
        num_detections=num_detections,
        num_unreadable=num_unreadable,
        num_resumed=num_resumed,
        unreadable=folder.write_unreadable(),
        best_score=best_score,
        task=task,
        threshold=job.threshold,
    )
