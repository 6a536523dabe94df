"""A detector as a finished file: graph, preprocessing and metadata, written at once and proven to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from boxwright.detector import Detector
from boxwright.exporting.exercise import ExerciseReport, exercise
from boxwright.exporting.graph import export_network
from boxwright.exporting.merging import merge
from boxwright.exporting.metadata import describe_detector, remove_traces, write_onnx_metadata, write_openvino_metadata
from boxwright.exporting.openvino import to_openvino
from boxwright.exporting.preprocessing import preprocessing_graph
from boxwright.exporting.requirements import import_extra, import_onnx, import_onnxruntime, import_openvino
from boxwright.files import check_target
from boxwright.ops.onnx_operators import Operators
from boxwright_runtime.exported_file import SUFFIXES_OF_KINDS, FileKind
from boxwright_runtime.metadata import Metadata, Profile

if TYPE_CHECKING:
    import onnx

    from boxwright.exporting.certificate import Certificate

_LARGEST_ONNX = 2**31 - 1
"""Bytes of a protocol buffer at most."""


@dataclass(frozen=True)
class ExportedDetector:
    """A finished file.

    Args:
        path: of the file.
        metadata: that it holds.
        report: of the runs that it was tried in.
        size: in bytes, weights beside it included.
        certificate: of what it was verified on; None where it was not.
    """

    path: Path
    metadata: Metadata
    report: ExerciseReport
    size: int
    certificate: Certificate | None = None


def export_file(
    detector: Detector,
    target: Path,
    *,
    form: FileKind = "onnx",
    profile: Profile = "bytes",
    ops: Operators = "auto",
    thresholds: Mapping[str, float] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ExportedDetector:
    """Write a detector as a file for another runtime, in float32.

    It has its name only once it was run in that runtime, at every size that it claims, and agreed with the detector.

    Args:
        detector: it stays as it is.
        target: the file: .onnx, or .xml for OpenVINO, whose weights are written beside it as .bin.
        form: of the file.
        profile: ``bytes`` for images of any size, or ``float`` for network inputs and sizes.
        ops: ``plain`` for runtimes without GridSample.
        thresholds: tuned least score of each class by its name, for the metadata.
        overwrite: replace what stands there.
        progress: hears of batches that it was run on, of all.

    Raises:
        ValueError: something stands there, a package is not installed, a part of the detector cannot be exported, or
            the file does not agree with the detector; then nothing is written.
    """
    check_export_target(target, form, overwrite=overwrite)
    check_requirements(form)
    metadata = describe_detector(detector, profile=profile, ops=ops, thresholds=thresholds)
    model = build_graph(detector, profile=profile, ops=ops)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        written = Path(folder, target.name)
        write_model(model, metadata, written)
        report = exercise(written, detector, progress=progress)
        move_files(written, target)
    return ExportedDetector(target, metadata, report, sum(path.stat().st_size for path in list_files(target)))


def build_graph(detector: Detector, *, profile: Profile, ops: Operators) -> onnx.ModelProto:
    """Export a detector from the input of a profile to boxes in pixels of the images, in float32, without metadata.

    Raises:
        ValueError: a part cannot be exported.
    """
    network = export_network(detector, ops=ops)
    remove_traces(network)
    return network if profile == "float" else merge(preprocessing_graph(detector.input_format), network)


def check_export_target(target: Path, form: FileKind, *, overwrite: bool) -> None:
    """Make sure that a file can be written.

    Raises:
        ValueError: its name does not end as it should, it or its weights are there already, or nothing can be written.
    """
    suffix = next(suffix for suffix, kind in SUFFIXES_OF_KINDS.items() if kind == form)
    if target.suffix != suffix:
        raise ValueError(f"{target}: the name of a file for {form} ends in {suffix}")
    for path in list_files(target):
        check_target(path)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists already and is not overwritten; give another name, or --overwrite")


def check_requirements(form: FileKind) -> None:
    """Make sure that all packages are there, before the minutes of an export.

    Raises:
        ValueError: one is not installed.
    """
    import_onnx()
    import_extra("onnxscript", "export")
    if form == "openvino":
        import_openvino()
    else:
        import_onnxruntime()


def list_files(path: Path) -> list[Path]:
    """List the files of an exported model: weights first, then the one with its name."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def write_model(model: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """Write a model with its metadata; the suffix decides for ONNX or OpenVINO.

    Raises:
        ValueError: it is too large for an ONNX file.
    """
    if path.suffix == ".xml":
        converted = to_openvino(model)
        write_openvino_metadata(converted, metadata)
        import_openvino().save_model(converted, path, compress_to_fp16=False)
        return
    write_onnx_metadata(model, metadata)
    if (size := model.ByteSize()) > _LARGEST_ONNX:
        raise ValueError(f"the model has {size / 2**30:.1f} GiB, and an ONNX file 2 at most")
    path.write_bytes(model.SerializeToString())


def move_files(written: Path, target: Path) -> None:
    """Move a finished file, and its weights, to where it belongs; there is never one with the weights of another."""
    *weights, _ = list_files(target)
    if weights:
        target.unlink(missing_ok=True)
    for source, destination in zip(list_files(written), list_files(target), strict=True):
        os.replace(source, destination)
