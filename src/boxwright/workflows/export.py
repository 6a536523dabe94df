"""Export: a trained detector to one file for another runtime, run there before it is called finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from boxwright.detector import Detector
from boxwright.exporting.export_file import (
    ExportedDetector,
    check_export_target,
    check_requirements,
    export_file,
)
from boxwright.ops.onnx_operators import Operators
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright_runtime.exported_file import SUFFIXES_OF_KINDS, FileKind
from boxwright_runtime.metadata import Profile


def export(
    model: str | Path | Detector,
    *,
    to: FileKind | None = None,
    out: str | Path | None = None,
    input: Profile = "bytes",
    ops: Operators = "auto",
    overwrite: bool = False,
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ExportedDetector:
    """Write a detector, or a classifier, as one file that needs no torch: bytes of images to boxes in their pixels.

    The file is run in its own runtime, on batches of 1, 2 and 5 images of several shapes, and compared with the model
    on the network inputs that it made itself, before it gets its name.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector, which stays as it is.
        to: ``onnx`` or ``openvino``; by the name of ``out`` where None, and else ``onnx``.
        out: the file: .onnx, or .xml for OpenVINO, with its weights beside it in .bin. Where None, it is called like
            the model, in the current folder.
        input: ``bytes``: RGB images of any size, resized and normalized inside; ``float``: network inputs that were
            made outside, and the sizes of the images.
        ops: ``plain`` for runtimes without GridSample, which gathers rows instead.
        overwrite: replace what stands there.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and what begins; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``: what its files cannot say.

    Returns:
        the file, its metadata, and what it was run on.

    Raises:
        FileNotFoundError: no such source.
        ValueError: not a model; something stands there; a package is not installed; a part cannot be exported; or the
            file disagrees with the model, and then it is not kept.
    """
    observer = observer or Observer()
    _check_choices(to, input, ops)
    target = _choose_target(model, to, out)
    form = SUFFIXES_OF_KINDS.get(target.suffix, "onnx") if to is None else to
    check_export_target(target, form, overwrite=overwrite)
    check_requirements(form)
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    observer.announce(f"exporting to {target}: tracing takes half a minute or more")
    with observer.track("running the file") as progress:
        exported = export_file(
            detector, target, form=form, profile=input, ops=ops, overwrite=overwrite, progress=progress
        )
    if not exported.report.agreement.total:
        observer.note(exported.report.describe())
    return exported


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
