"""Conversion: a detector from any source to a checkpoint of ours, or to the layout of another project."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.checkpoints import TORCH_SUFFIXES, read_checkpoint, save_tensors
from boxwright.compose.detectors import build_resolved, load_weights
from boxwright.compose.recipes import resolve
from boxwright.compose.undrawn import WithoutDraws
from boxwright.detector import Detector
from boxwright.files import check_folder, check_target, replace_file
from boxwright.passport import Passport
from boxwright.structures import Category
from boxwright.weights.carried_passport import passport_header
from boxwright.weights.files import WEIGHT_FILES, read_source_files
from boxwright.weights.model import OURS, build_model, convert_files, read_model
from boxwright.weights.recognize import find_kind, list_kinds
from boxwright.weights.source import Layout, WritableSource
from boxwright.weights.table import COUNTER
from boxwright.workflows.card import write_card
from boxwright.workflows.observer import Observer
from boxwright_runtime.detections import Detections
from boxwright_runtime.streaming import ImageInput

_FILE_SUFFIXES = (".safetensors", ".bin", *TORCH_SUFFIXES)

_NO_PLACE = (
    "this file has no place for the passport (data, metrics, what training began with): "
    "give a name that ends in .safetensors"
)

_SHOWN = 3
"""Classes in a note, of many."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A detector in another layout, written and read back.

    Args:
        out: the file, or the folder.
        layout: kind of source that reads it, as ``hf_rtdetr``; ``boxwright`` for a checkpoint of ours.
        source: kind of source that it was read from, likewise.
        taken: number of tensors that were read.
        skipped: tensors of the source that were not, with the reason.
        left_out: tensors of ours that the layout has no place for.
        notes: what was assumed, and what the layout does not say, one line each.
    """

    out: Path
    layout: str
    source: str
    taken: int
    skipped: Mapping[str, str]
    left_out: Sequence[str]
    notes: Sequence[str]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    card: bool = False,
    images: Sequence[ImageInput] = (),
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert a detector to a checkpoint of ours, or to the layout of another project; read it back and compare.

    Args:
        source: any that ``boxwright.load`` takes.
        out: where there is nothing yet: a file, like ``model.safetensors``, or a folder where layout or card need
            several files.
        to: kind of the layout, as ``hf_rtdetr``, or the beginning of its name, as ``hf``: the one that can hold this
            detector; ours where None.
        card: also write a model card, ``README.md``.
        images: for the card, drawn with what is found in them.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes; they become warnings where None.
        overrides: what to change in the model's recipe, as for ``boxwright.build``.

    Raises:
        FileNotFoundError: no such source.
        ValueError: not a model, something is in the way, or the layout cannot hold this detector.
    """
    observer, target = observer or Observer(), Path(out)
    is_file = _check_out(target, card)
    if images and not card:
        raise ValueError("images are for the model card: ask for one too (--card)")
    kinds = [] if to is None else find_writable(to)
    model = read_model(source, trusted=trusted, overrides=overrides)
    detector, taught = build_model(model), list[str]()
    if to is not None:
        detector, taught = _leave_out_supervision(detector)
    kind, layout = (OURS, None) if to is None else _choose_layout(kinds, detector, to)
    if layout is not None and layout.files and is_file:
        raise ValueError(f"{target}: this layout has several files; give the name of a folder, without {target.suffix}")
    with observer.track("writing"):
        left_out, notes = _write_checked(target, detector, layout, is_file=is_file)
    if card:
        write_card(target, detector, layout=kind, images=images)
    for note in (*model.notes, *notes):
        observer.note(note)
    return Conversion(
        out=target,
        layout=kind,
        source=model.origin.kind,
        taken=len(model.tensors),
        skipped=model.skipped,
        left_out=[*taught, *left_out],
        notes=(*model.notes, *notes),
    )


def _leave_out_supervision(detector: Detector) -> tuple[Detector, list[str]]:
    """Return the detector without what only teaches it, for other projects, and the names of these tensors."""
    assert detector.recipe is not None
    stated = detector.recipe.to_dict()
    supervision = stated["head"].get("supervision", {})
    overrides: dict[str, Any] = {}
    if supervision.get("auxiliary"):
        overrides["head.supervision.auxiliary"] = []
    if supervision.get("distillation", {}).get("teacher"):
        overrides["head.supervision.distillation.teacher"] = None
    if not overrides:
        return detector, []
    recipe = resolve(stated, overrides).recipe
    with WithoutDraws():
        plain = build_resolved(recipe, categories=detector.categories, check_size=False)
    tensors = detector.state_dict()
    load_weights(plain, {name: tensors[name] for name in plain.state_dict()})
    plain.passport, plain.tuning = detector.passport, detector.tuning
    return plain.eval(), [name for name in tensors if name not in plain.state_dict()]


def find_writable(name: str) -> list[str]:
    """List the kinds of layouts of a name: of its own, or those that begin with it.

    Raises:
        ValueError: there is none.
    """
    writable = [kind for kind in list_kinds() if isinstance(find_kind(kind), WritableSource)]
    kinds = [kind for kind in writable if kind == name] or [kind for kind in writable if kind.startswith(f"{name}_")]
    if not kinds:
        counts = Counter(kind.partition("_")[0] for kind in writable if "_" in kind)
        short = [beginning for beginning, count in counts.items() if count > 1]
        raise ValueError(f"there is no layout '{name}' to write; there are {', '.join([*short, *writable])}")
    return kinds


def _choose_layout(kinds: Sequence[str], detector: Detector, name: str) -> tuple[str, Layout]:
    """Write in the layout that can hold the detector: names of tensors and files, in memory."""
    reasons = []
    for kind in kinds:
        try:
            return kind, find_kind(kind).write(detector)
        except ValueError as error:
            reasons.append(f"{kind}: {error}")
    raise ValueError(f"the layout '{name}' cannot hold this detector: {'; '.join(reasons)}")


def _check_out(out: Path, card: bool) -> bool:
    """Tell whether a file is to be written, after making sure that nothing is in the way."""
    if out.exists():
        raise ValueError(f"{out} exists already and is not overwritten; give another name")
    is_file = out.suffix in _FILE_SUFFIXES
    if is_file and card:
        raise ValueError(f"{out}: a model card needs a folder; give its name, without {out.suffix}")
    if is_file:
        check_target(out)
    else:
        check_folder(out)
    return is_file


def _write_checked(
    out: Path, detector: Detector, layout: Layout | None, *, is_file: bool
) -> tuple[list[str], list[str]]:
    """Write the files, read them back and compare; what reads back otherwise is removed.

    Returns:
        Names of tensors that the layout has no place for, and notes on what else it does not say.
    """
    folder = out.parent if is_file else out
    folder.mkdir(parents=True, exist_ok=True)
    weights = out if is_file else out / (WEIGHT_FILES[0] if layout is None else layout.file_name)
    try:
        if layout is None:
            detector.save(weights)
            _compare(detector.state_dict(), read_checkpoint(weights)["model"])
            return [], []
        has_place = _write_layout(layout, weights, detector.passport)
        left_out, notes = _compare_layout(detector, layout, out if layout.files else weights)
        return left_out, notes if has_place or not _has_history(detector.passport) else [*notes, _NO_PLACE]
    except BaseException:
        weights.unlink(missing_ok=True)
        if not is_file:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _has_history(passport: Passport | None) -> bool:
    return passport is not None and any((passport.data, passport.metrics, passport.parent, passport.backbone))


def _write_layout(layout: Layout, weights: Path, passport: Passport | None = None) -> bool:
    """Write the files; tell whether there was a place for the passport, beside whose entry others load the rest."""
    for name, values in layout.files.items():
        (weights.parent / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if weights.suffix == ".safetensors" and not layout.wrap:
        # The header says whose tensors they are, as transformers wants to know.
        header = {"format": "pt", **passport_header(passport)}
        replace_file(weights, lambda path: save_tensors(path, layout.tensors, header))
        return True
    content: Any = {name: tensor.detach().cpu().contiguous() for name, tensor in layout.tensors.items()}
    for key in reversed(layout.wrap):
        content = {key: content}
    if layout.wrap:
        content |= passport_header(passport)
    replace_file(weights, lambda path: torch.save(content, path))
    return bool(layout.wrap)


def _compare_layout(detector: Detector, layout: Layout, path: Path) -> tuple[list[str], list[str]]:
    """Compare the tensors of the files, and the detector that they become here.

    Options and classes that the files do not say are noted whatever is predicted: a detector that finds nothing in an
    image finds the same with any options.
    """
    files = read_source_files(path)
    _compare(layout.tensors, files.tensors)
    again = convert_files(files)
    own = detector.state_dict()
    _compare({name: own[name] for name in again.tensors}, again.tensors)
    left_out = [name for name in own if name not in again.tensors and not name.endswith(COUNTER)]
    assert detector.recipe is not None
    changed = _list_changes(detector.recipe.to_dict(), again.recipe.to_dict())
    classes = _list_other_classes(detector.categories, again.categories)
    notes = []
    if changed:
        options = ", ".join(changed)
        notes.append(f"the files do not say everything: read back they mean {options}; say it when you load them")
    if classes:
        notes.append(f"the files do not say the names of all classes: read back, {_shorten(classes)}")
    if not changed and not _predicts_alike(detector, build_model(again)):
        raise ValueError("what is read back predicts otherwise than what was written: nothing is kept")
    return left_out, notes


def _list_other_classes(own: Sequence[Category], again: Sequence[Category]) -> list[str]:
    """List the classes that are read back by another name; labels count from 0."""
    pairs = zip_longest((one.name for one in own), (one.name for one in again))
    return [f"{one} is {other}" for one, other in pairs if one != other]


def _shorten(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ", ".join(lines[:_SHOWN]) + more


def _predicts_alike(one: Detector, other: Detector) -> bool:
    """Tell whether two detectors find the same in an image of noise."""
    image = torch.randint(256, (3, 90, 120), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ((boxes, scores), (boxes_again, scores_again)) = (_predict(detector, image) for detector in (one, other))
    return torch.equal(boxes, boxes_again) and torch.equal(scores, scores_again)


def _predict(detector: Detector, image: Tensor) -> tuple[Tensor, Tensor]:
    detections = detector.predict(image)
    assert isinstance(detections, Detections)
    return detections.boxes, detections.scores


def _compare(expected: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in stored or stored[name].dtype != tensor.dtype or not torch.equal(stored[name], tensor.cpu()):
            raise ValueError(f"{name} reads back otherwise than it was written: nothing is kept")


def _list_changes(own: Any, again: Any, address: str = "") -> list[str]:
    """List options of parts and preprocessing that are read back otherwise."""
    if not address:
        own = {name: own[name] for name in ("backbone", "neck", "head", "input")}
    if isinstance(own, Mapping) and isinstance(again, Mapping):
        pairs = [(name, own[name], again.get(name)) for name in own if not name.startswith("train")]
    elif isinstance(own, list) and isinstance(again, list) and len(own) == len(again) and address == "neck":
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(own, again, strict=True))]
    else:
        return [] if own == again else [f"{address} {again} instead of {own}"]
    return [line for name, one, other in pairs for line in _list_changes(one, other, f"{address}.{name}".lstrip("."))]
