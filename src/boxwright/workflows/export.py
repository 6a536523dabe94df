"""Export: a trained detector to one file for another runtime, run there before it is called finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from boxwright.detector import Detector
from boxwright.exporting.export_file import (
    ExportedDetector,
    check_export_target,
    check_requirements,
    export_file,
)
from boxwright.exporting.precision import Precision, check_precision
from boxwright.ops.onnx_operators import Operators
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data
from boxwright.workflows.verification import ExportPlan, Verification, drop_certificate, plan_export
from boxwright_runtime.exported_file import SUFFIXES_OF_KINDS, FileKind
from boxwright_runtime.metadata import Profile


def export(
    model: str | Path | Detector,
    *,
    to: FileKind | None = None,
    out: str | Path | None = None,
    input: Profile = "bytes",
    ops: Operators = "auto",
    precision: Precision = "fp32",
    verify: Data | Verification | None = None,
    calibrate: Data | None = None,
    overwrite: bool = False,
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ExportedDetector:
    """Write a detector, or a classifier, as one file that needs no torch: bytes of images to boxes in their pixels.

    The file is run in its own runtime, on batches of 1, 2 and 5 images of several shapes, and compared with the model
    on the network inputs that it made itself, before it gets its name. With ``verify``, its AP is measured beside the
    model's, and a certificate is written; where a precision loses too much, layers are kept in float32.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector, which stays as it is.
        to: ``onnx`` or ``openvino``; by the name of ``out`` where None, and else ``onnx``.
        out: the file: .onnx, or .xml for OpenVINO, with its weights beside it in .bin. Where None, it is called like
            the model, in the current folder.
        input: ``bytes``: RGB images of any size, resized and normalized inside; ``float``: network inputs that were
            made outside, and the sizes of the images.
        ops: ``plain`` for runtimes without GridSample, which gathers rows instead.
        precision: fp32, fp16, bf16 (of OpenVINO) or int8.
        verify: data to measure the file on, split ``val``; a ``Verification`` says more. None for no certificate.
        calibrate: data whose split ``train`` conversions are measured on; that of ``verify`` where None.
        overwrite: replace what stands there.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and what begins; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``: what its files cannot say.

    Returns:
        the file, its metadata, what it was run on, and its certificate.

    Raises:
        FileNotFoundError: no such source, or no such data.
        RejectedFileError: the file loses more than it may; it is kept under another name.
        ValueError: not a model; faulty data; something stands there; a package is not installed; a part cannot be
            exported; or the file disagrees with the model, and then it is not kept.
    """
    observer = observer or Observer()
    _check_choices(to, input, ops)
    target = _choose_target(model, to, out)
    form = SUFFIXES_OF_KINDS.get(target.suffix, "onnx") if to is None else to
    check_export_target(target, form, overwrite=overwrite)
    check_requirements(form)
    check_precision(precision, form)
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    plan = plan_export(detector, form, precision=precision, verify=verify, calibrate=calibrate, observer=observer)
    observer.announce(f"exporting to {target}: tracing takes half a minute or more")
    exported = _write(plan, target, form, input, ops, overwrite, observer)
    if exported.certificate is None:
        drop_certificate(target)
    return exported


def _write(
    plan: ExportPlan,
    target: Path,
    form: FileKind,
    profile: Profile,
    ops: Operators,
    overwrite: bool,
    observer: Observer,
) -> ExportedDetector:
    """Write the file in float32, and make of it what was planned."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        written = target if plan.is_plain else Path(folder, target.name)
        with observer.track("running the file") as progress:
            exported = export_file(
                plan.detector, written, form=form, profile=profile, ops=ops, overwrite=overwrite, progress=progress
            )
        if not exported.report.agreement.total:
            observer.note(exported.report.describe())
        return exported if plan.is_plain else plan.finish(exported, target, observer)


def _check_choices(to: str | None, input: str, ops: str) -> None:
    for name, value, choices in (
        ("to", to, (None, *get_args(FileKind))),
        ("input", input, get_args(Profile)),
        ("ops", ops, get_args(Operators)),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {' or '.join(filter(None, choices))}, not {value!r}")


def _choose_target(model: str | Path | Detector, to: FileKind | None, out: str | Path | None) -> Path:
    """Name the file as asked, or like the model."""
    if out is not None:
        return Path(out)
    if isinstance(model, Detector):
        raise ValueError("a detector has no name that its file could have: give one with out")
    name = str(model).rstrip("/").rpartition(":")[2].rpartition("/")[2].partition("@")[0]
    path = Path(name)
    stem = path.stem if path.suffix in (".pt", ".pth", ".safetensors", ".bin") else path.name
    return Path(stem + (".xml" if to == "openvino" else ".onnx"))
