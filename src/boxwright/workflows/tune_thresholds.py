"""Operating thresholds of a trained detector, tuned on a data set and stored in its checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.checkpoints import find_checkpoint, is_checkpoint, read_checkpoint, write_checkpoint
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions, choose_device
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.held_out import HeldOutCounts, count_held_out
from boxwright.evaluation.operating_points import OperatingPoint, find_operating_points, thresholds_of
from boxwright.evaluation.score_calibration import fit_scaling
from boxwright.evaluation.threshold_target import Target
from boxwright.passport import TrainingData
from boxwright.score_tuning import ScoreTuning
from boxwright.weights.files import file_sha256
from boxwright.workflows.evaluate import evaluate
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright.workflows.passports import describe_data
from boxwright.workflows.reading import Data
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.printable_names import printable


@dataclass(frozen=True, eq=False)
class TuningResult:
    """Thresholds that were tuned.

    Args:
        path: of the checkpoint that has them now; None where a detector was tuned.
        tuning: thresholds and scales of scores, of all images of the split.
        points: what each threshold does on these images.
        held_out: what thresholds and scales of one half of the images do on the other one, and the other way round.
        evaluation: of the detector.
    """

    path: Path | None
    tuning: ScoreTuning
    points: tuple[OperatingPoint, ...]
    held_out: HeldOutCounts
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, ready for ``json.dump``."""
        points = [one.to_json() for one in self.points]
        return {"tuning": self.tuning.to_dict(), "points": points, "held_out": self.held_out.to_json()}


def tune_thresholds(
    model: str | Path | Detector,
    data: Data,
    *,
    split: str = "val",
    target: str | Target = "f1",
    batch_size: int = 8,
    workers: int = 0,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
) -> TuningResult:
    """Find the threshold of each class that reaches a target, and store it in the checkpoint.

    ``predict`` takes it with ``threshold="tuned"``, and exported files have it. The checkpoint is otherwise the same.
    The scale of each class is fitted and stored too: ``Detections.calibrated`` turns scores into the fraction of
    detections that are right.

    Args:
        model: a checkpoint of Boxwright or the folder of a run, whose best checkpoint is tuned; or a detector, which
            gets the result as its ``tuning``, for ``save`` to write.
        data: as for ``evaluate``; images that it was not trained on.
        split: the name of the split.
        target: ``f1``, ``precision=0.9`` or ``recall=0.95``, counted at IoU 0.5.
        batch_size: images that go through the network together.
        workers: processes that read images; 0 reads in this one.
        device: as for ``evaluate``. A detector is measured where it is.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no checkpoint of a detector, faulty data, fewer than two images, no objects, or another target.
    """
    aim = Target.parse(target) if isinstance(target, str) else target
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    path = None if isinstance(model, Detector) else _find_file(model)
    before = None if path is None else file_sha256(path)
    detector = load_detector(model if path is None else path, trusted=trusted, observer=observer)
    _check_classes(detector, str(path or "this model"))
    if path is not None:
        detector.to(choose_device(compute.device))
    evaluation = evaluate(
        detector, data, split=split, batch_size=batch_size, workers=workers, device=compute, observer=observer
    )
    assert isinstance(evaluation, Evaluation)  # it is a detector
    if not evaluation.matched.counted.any():
        raise ValueError(f"{evaluation.data.source}: no object in {split} to tune thresholds on")
    result = _tune(evaluation, aim, describe_data(evaluation.data, data), path)
    if path is None:
        detector.tuning = result.tuning
    else:
        _store(path, result.tuning, before)
    return result


def _tune(evaluation: Evaluation, target: Target, data: TrainingData, path: Path | None) -> TuningResult:
    names, matched = [category.name for category in evaluation.data.categories], evaluation.matched
    points, scaling = find_operating_points(matched, names, target), fit_scaling(matched, len(names))
    tuning = ScoreTuning(
        target=str(target),
        thresholds=thresholds_of(points),
        temperatures=scaling.temperatures,
        shifts=scaling.shifts,
        data=data,
    )
    return TuningResult(path, tuning, points, count_held_out(matched, names, target), evaluation)


def _find_file(model: str | Path) -> Path:
    """Find the checkpoint that thresholds are stored in."""
    if is_exported_name(model):
        raise ValueError(
            f"{printable(model)} is an exported file: tune the model that it was exported from, and export it"
        )
    if not Path(model).exists() and ":" not in str(model):
        raise FileNotFoundError(f"{printable(model)}: no such checkpoint, nor folder of a run")
    if not Path(model).exists() or not is_checkpoint(path := find_checkpoint(model)):
        raise ValueError(
            f"{printable(model)}: thresholds are stored in checkpoints of Boxwright, and this is none: make one by "
            f"`boxwright convert {printable(model)} model.safetensors`"
        )
    return path


def _check_classes(detector: Detector, name: str) -> None:
    if detector.task != "detection":
        raise ValueError(f"{name} is for {detector.task}; thresholds are those of detectors")
    names = [category.name for category in detector.categories]
    if double := sorted({one for one in names if names.count(one) > 1}):
        raise ValueError(f"{name}: {double[0]!r} is the name of more than one class, and thresholds go by names")


def _store(path: Path, tuning: ScoreTuning, before: str | None) -> None:
    """Write the checkpoint again, with thresholds.

    Raises:
        ValueError: it is another one by now, as where training goes on.
    """
    content = read_checkpoint(path)
    if file_sha256(path) != before:
        raise ValueError(f"{path} was replaced while its thresholds were tuned: tune those of the new one")
    write_checkpoint(path, {**content, "tuning": tuning.to_dict()})
