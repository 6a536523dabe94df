"""From a file in float32 to a file that may be used: converted, measured, and mended or rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from boxwright.exporting.certificate import Certificate, ConversionTry, find_certificate, with_speed
from boxwright.exporting.export_file import list_files, move_files
from boxwright.exporting.layer_search import LayerTry, search_layers
from boxwright.exporting.precision import FileConverter, Images, Precision, describe_layers, open_converter
from boxwright.files import write_text
from boxwright.workflows.bench import bench
from boxwright.workflows.bench_candidates import BenchGrid, list_candidates
from boxwright.workflows.bench_process import start_process
from boxwright.workflows.certify import ReferenceModel, certify
from boxwright.workflows.observer import Observer

TOLERANCES: dict[Precision, float] = {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5, "int8": 0.5}
"""Points of AP, of 100, that a file may lose."""

MOST_TRIES = 6
"""Conversions with some layers in float32, each of which is measured on the whole split."""

SPEED_ROUNDS = 5

SEARCHED: tuple[Precision, ...] = ("fp16", "int8")
"""Precisions of which single layers can stay in float32."""


class RejectedFileError(ValueError):
    """A file that must not be used.

    Args:
        message: one line.
        certificate: that says why.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate


def convert_and_certify(
    source: Path,
    target: Path,
    reference: ReferenceModel,
    *,
    precision: Precision,
    images: Images,
    tolerance: float | None = None,
    most_tries: int = MOST_TRIES,
    observer: Observer,
) -> Certificate:
    """Make a file of a precision, and measure it; where layers lose too much, keep the worst of them in float32.

    The file and its certificate get their names only if it is accepted; else both are kept under another one.

    Args:
        source: the file in float32.
        target: the finished file.
        reference: the model, and the split that is measured on.
        precision: of the finished file.
        images: inputs that conversions are measured on.
        tolerance: points of AP, of 100, that it may lose; by the precision where None.
        most_tries: conversions with layers in float32 at most.
        observer: hears notes and progress.

    Raises:
        RejectedFileError: the file lost more than it may, or differs in another way.
        ValueError: the conversion failed, or the file cannot be run.
    """
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        search = _Search(Path(folder), target.name, reference, tolerance, observer)
        if precision == "fp32":
            copy = search.next_path()
            for one, other in zip(list_files(source), list_files(copy), strict=True):
                shutil.copy(one, other)
            kept = search.measure(copy)
        else:
            kept = search.run(open_converter(source, precision, images), most_tries if precision in SEARCHED else 0)
        tries = tuple(one.conversion for one in search.made)
        path, certificate = kept.path, replace(kept.certificate, file=target.name, conversions=tries)
        if not certificate.is_accepted:
            raise _reject(path, target, certificate)
        certificate = with_speed(certificate, _measure_speed(path, reference))
        move_files(path, target)
        write_certificate(target, certificate)
    return certificate


def check_runs(path: Path) -> None:
    """Run a converted file in a process of its own: runtimes have crashed on such files, and would end this one too.

    Raises:
        ValueError: it cannot be loaded or run.
    """
    (candidate,) = list_candidates([(str(path), path.name)], BenchGrid())
    with start_process(candidate) as process:
        process.prepare()


def write_certificate(file: Path, certificate: Certificate) -> None:
    """Write the certificate of a file beside it."""
    write_text(find_certificate(file), json.dumps(certificate.to_json(), indent=2) + "\n")


class _Made(NamedTuple):
    """A converted file, and the measurement of it."""

    path: Path
    certificate: Certificate
    conversion: ConversionTry


class _Search:
    """Conversions of one file, each in a folder of its own."""

    def __init__(
        self, folder: Path, name: str, reference: ReferenceModel, tolerance: float, observer: Observer
    ) -> None:
        self.folder, self.name = folder, name
        self.reference, self.tolerance, self.observer = reference, tolerance, observer
        self.made: list[_Made] = []

    def next_path(self) -> Path:
        """Make a folder for one more file, and return the path of the file."""
        folder = self.folder / str(len(self.made))
        folder.mkdir()
        return folder / self.name

    def run(self, converter: FileConverter, most_tries: int) -> _Made:
        """Convert everything; where that loses too much, search for the layers that stay in float32."""
        first = self._convert(converter, ())
        if first.conversion.loss <= self.tolerance or not most_tries:
            return first
        self.observer.note(
            f"{first.conversion.loss:.2f} points are lost, and may be {self.tolerance:g}: searching for layers that "
            "have to stay in float32"
        )

        def measure(nodes: tuple[str, ...]) -> LayerTry[_Made]:
            made = self._convert(converter, nodes)
            return LayerTry(nodes, made.certificate.is_accepted, made)

        tries = search_layers(list(converter.rank_layers()), measure, most_tries=most_tries)
        good = [one.result for one in tries if one.is_good]
        if not good:
            return min(self.made, key=lambda one: one.conversion.loss)
        lost = f"{good[-1].conversion.loss:.2f} points are lost"
        self.observer.note(f"in float32 stay {describe_layers(good[-1].conversion.float32)}: {lost}")
        return good[-1]

    def measure(self, path: Path, float32: Sequence[str] = ()) -> _Made:
        """Measure a file that is there."""
        certificate = certify(path, self.reference, tolerance=self.tolerance, observer=self.observer, float32=float32)
        loss = max(certificate.measurements.losses().values())
        conversion = ConversionTry(float32=tuple(float32), loss=loss, is_good=certificate.is_accepted)
        self.made.append(_Made(path, certificate, conversion))
        return self.made[-1]

    def _convert(self, converter: FileConverter, nodes: Sequence[str]) -> _Made:
        path = self.next_path()
        with self.observer.track("converting"):
            converter.write(path, nodes)
            check_runs(path)
        return self.measure(path, converter.name_layers(nodes))


def _reject(path: Path, target: Path, certificate: Certificate) -> RejectedFileError:
    """Keep a file under another name, with its certificate, so that nobody takes it for a good one."""
    rejected = target.with_name(f"{target.stem}.rejected{target.suffix}")
    move_files(path, rejected)
    write_certificate(rejected, certificate)
    return RejectedFileError(
        f"{target.name} is rejected: {'; '.join(certificate.faults)}; it is kept as {rejected}", certificate
    )


def _measure_speed(path: Path, reference: ReferenceModel) -> list[dict[str, object]]:
    """Measure the model and the file side by side, in short; nothing for a model without a recipe to load it by."""
    if reference.detector.recipe is None:
        return []
    result = bench([reference.detector, path], runtimes=("folded", "onnxruntime", "openvino"), rounds=SPEED_ROUNDS)
    names = ("runtime", "precision", "input", "median_ms", "p95_ms", "images_per_second", "peak_bytes", "ratio")
    return [{name: row.to_json()[name] for name in names} for row in result.rows]
