"""Plan of an export: in which precision, on what it is verified, and on what images it is calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.exporting.certificate import find_certificate
from boxwright.exporting.export_file import ExportedDetector, list_files, move_files
from boxwright.exporting.precision import Images, Precision, check_precision, open_converter
from boxwright.workflows.calibration import make_calibration
from boxwright.workflows.certified_export import MOST_TRIES, check_runs, convert_and_certify
from boxwright.workflows.certify import ReferenceModel, measure_reference
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, has_split, read_split
from boxwright_runtime.exported_file import FileKind, read_exported_file

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Data that an exported file is verified on, and what it may lose there.

    Args:
        data: the data set.
        split: the name of the split.
        tolerance: points of AP, of 100, that the file may be below the model; 0.1 in float32 and else 0.5 where None.
        most_tries: conversions with some layers in float32 that may be tried, each measured on the whole split.
    """

    data: Data
    split: str = "val"
    tolerance: float | None = None
    most_tries: int = MOST_TRIES

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 <= self.tolerance <= 100:
            raise ValueError(f"tolerance is in points of AP, from 0 to 100, not {self.tolerance}")
        if self.most_tries < 0:
            raise ValueError(f"most_tries is at least 0, not {self.most_tries}")


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """All that is read and measured before an export, which takes minutes.

    Args:
        detector: that is exported.
        precision: of the file.
        verification: None where the file is not verified.
        reference: the model, measured on the same data; None likewise.
        calibration: images that conversions are measured on; None where there are none.
    """

    detector: Detector
    precision: Precision
    verification: Verification | None
    reference: ReferenceModel | None
    calibration: DetectionData | None

    @property
    def is_plain(self) -> bool:
        """True where the file in float32 is all that is asked for."""
        return self.precision == "fp32" and self.verification is None

    def finish(self, source: ExportedDetector, target: Path, observer: Observer) -> ExportedDetector:
        """Convert a file in float32, verify it, and give it its name.

        Args:
            source: the file.
            target: the finished file.
            observer: hears notes and progress.

        Raises:
            RejectedFileError: it lost more than it may, or differs in another way.
            ValueError: the conversion failed, or the file cannot be run.
        """
        images: Images = ()
        if self.calibration is not None and self.precision != "fp32":
            images = make_calibration(source.path, self.detector, self.calibration)
        if self.verification is None or self.reference is None:
            self._convert(source.path, target, images)
            observer.note(f"{target} was not measured in {self.precision}: give --verify DATA")
            certificate = None
        else:
            certificate = convert_and_certify(
                source.path,
                target,
                self.reference,
                precision=self.precision,
                images=images,
                tolerance=self.verification.tolerance,
                most_tries=self.verification.most_tries,
                observer=observer,
            )
        size = sum(path.stat().st_size for path in list_files(target))
        metadata = read_exported_file(target).metadata
        return replace(source, path=target, metadata=metadata, size=size, certificate=certificate)

    def _convert(self, source: Path, target: Path, images: Images) -> None:
        converted = source.with_name(f"converted-{target.name}")
        open_converter(source, self.precision, images).write(converted)
        check_runs(converted)
        move_files(converted, target)


def plan_export(
    detector: Detector,
    form: FileKind,
    *,
    precision: Precision,
    verify: Data | Verification | None,
    calibrate: Data | None,
    observer: Observer,
) -> ExportPlan:
    """Check what was asked for, read the data and measure the model.

    Args:
        detector: the model.
        form: of the file.
        precision: of the file.
        verify: data, or data and what is asked of the file there; None for no certificate.
        calibrate: data whose split ``train`` has images like those to come; that of ``verify`` where None.
        observer: hears notes and progress.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: a precision that there is not, or without what it needs; or faulty data.
    """
    check_precision(precision, form)
    verification = verify if isinstance(verify, Verification) or verify is None else Verification(data=verify)
    calibration = _read_calibration(detector, precision, verification, calibrate, observer)
    reference = None
    if verification is not None:
        read = read_split(
            verification.data,
            verification.split,
            task=detector.task,
            categories=detector.categories,
            observer=observer,
        )
        reference = measure_reference(detector, read, verification.data, split=verification.split, observer=observer)
    return ExportPlan(
        detector=detector,
        precision=precision,
        verification=verification,
        reference=reference,
        calibration=calibration,
    )


def drop_certificate(target: Path) -> None:
    """Remove the certificate of a file that another one has replaced."""
    find_certificate(target).unlink(missing_ok=True)


def _read_calibration(
    detector: Detector,
    precision: Precision,
    verification: Verification | None,
    calibrate: Data | None,
    observer: Observer,
) -> DetectionData | None:
    if precision not in ("int8", "fp16"):
        return None
    data = calibrate
    if data is None and verification is not None and has_split(verification.data, TRAIN, detector.task):
        data = verification.data
    if data is None:
        if precision == "int8":
            raise ValueError(
                "int8 needs images like those to come, to measure activations on: give --calibrate DATA, of which the "
                "split train is read, or --verify DATA that has one"
            )
        return None
    return read_split(data, TRAIN, task=detector.task, categories=detector.categories, observer=observer)
