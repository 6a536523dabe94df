"""The format of checkpoints: write, read, check. Nothing that a file brings is executed.

A checkpoint is a mapping: ``format`` and ``version``; ``recipe``, resolved, as plain values; ``categories``, the
(id, name) of each label; ``model``, the weights by name; perhaps ``ema``, their moving average; ``passport``, origin
and history of the weights; perhaps ``tuning``, thresholds of the classes; and what training needs to go on. One to
predict with is a safetensors file, whose header has all but the weights as JSON. One to go on from is in torch's own
file format. Those of earlier versions are brought to the present names when they are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from boxwright import legacy
from boxwright.checkpoint_contents import check_contents
from boxwright.checksums import CHECKSUM, add_checksum, checksum_place, is_damaged, verify_checksum
from boxwright.files import replace_file
from boxwright.passport import Passport
from boxwright.score_tuning import ScoreTuning
from boxwright.structures import Category
from boxwright.tensor_files import file_format, peek_strings, read_tensor_file

FORMAT = "boxwright"

BEST, LAST = "best.safetensors", "last.pt"
"""The checkpoints in the folder of a run."""

PREVIOUS = "last.previous.pt"
"""The one before the last, for the case that the last is damaged."""

EARLIER_BEST = "best.pt"
"""The best checkpoint of a run, up to checkpoint format 2."""

TORCH_SUFFIXES = (".pt", ".pth")
"""Names of files in torch's own format end so; every other one is written as safetensors."""


def pack_checkpoint(
    recipe: Mapping[str, Any],
    categories: Sequence[Category],
    weights: Mapping[str, Tensor],
    passport: Passport | None = None,
    tuning: ScoreTuning | None = None,
) -> dict[str, Any]:
    """Put together what every checkpoint holds; training adds keys of its own.

    Args:
        recipe: resolved, as plain values.
        categories: label i means ``categories[i]``.
        weights: the detector's state.
        passport: origin and history of the weights.
        tuning: tuned thresholds of the classes.
    """
    return {
        "format": FORMAT,
        "version": legacy.VERSION,
        "recipe": dict(recipe),
        "categories": [(category.id, category.name) for category in categories],
        "passport": None if passport is None else passport.to_dict(),
        **({} if tuning is None else {"tuning": tuning.to_dict()}),
        "model": weights,
    }


def write_checkpoint(path: Path, content: Mapping[str, Any], *, earlier: str | None = None) -> None:
    """Write a checkpoint, in torch's format where the name ends in .pt or .pth, else as safetensors.

    An earlier file stays whole until the new one is complete on disk; links and devices stay what they are.

    Args:
        path: of the file.
        content: as ``pack_checkpoint`` puts it together, and more.
        earlier: name under which an earlier file is kept; None where it is not.
    """
    is_torch = path.suffix in TORCH_SUFFIXES
    replace_file(path, lambda unfinished: _write_content(unfinished, content, is_torch), earlier=earlier)


def _write_content(path: Path, content: Mapping[str, Any], is_torch: bool) -> None:
    if is_torch:
        with open(path, "wb") as file:
            torch.save(content, file)
    else:
        values = {name: value for name, value in content.items() if name != "model"}
        header = {name: value if name == "format" else json.dumps(value) for name, value in values.items()}
        save_tensors(path, content["model"], {**header, CHECKSUM: checksum_place()})
    add_checksum(path)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file; tensors that share memory are written as often as they have names."""
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        own[name] = plain.clone() if storage in storages else plain
        storages.add(storage)
    # safetensors lets nobody but the owner read the file; other files of a run are as the user has set it.
    with open(path, "wb") as file:
        mode = os.fstat(file.fileno()).st_mode
    save_file(own, path, metadata=dict(header))
    os.chmod(path, mode)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with today's names.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, or a damaged one.
    """
    content = _load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: holds weights, but not of Boxwright; a checkpoint comes from `boxwright train`")
    version = content.get("version")
    if not isinstance(version, int) or version not in range(1, legacy.VERSION + 1):
        shown = version if isinstance(version, int) and abs(version) < 2**63 else "unknown"
        raise ValueError(
            f"{path}: has checkpoint format {shown}, this release reads 1 to {legacy.VERSION}; use "
            "the release that wrote it"
        )
    missing = [key for key in ("recipe", "categories", "model") if key not in content]
    if missing:
        raise ValueError(f"{path}: a damaged checkpoint, without {', '.join(missing)}")
    try:
        content = legacy.upgrade_checkpoint(content)
        check_contents(content)
        passport_of(content)
        tuning_of(content)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"{path}: a damaged checkpoint: {' '.join(str(error).split())}") from error
    return content


def is_checkpoint(path: Path) -> bool:
    """Tell whether a file says that it is a checkpoint of ours; its weights are not read."""
    try:
        if file_format(path) == "safetensors":
            with safe_open(path, "pt") as file:
                return (file.metadata() or {}).get("format") == FORMAT
    except Exception:  # Files of any kind may stand there, with any error.
        return False
    return peek_strings(path) == ["format", FORMAT]


def is_run(path: Path) -> bool:
    """Tell whether a folder holds checkpoints of ours, as that of a run does."""
    return any((path / name).is_file() for name in (BEST, EARLIER_BEST, LAST, PREVIOUS))


def find_checkpoint(path: str | Path) -> Path:
    """Find a checkpoint's file: ``path`` itself, or the best or else the last checkpoint of a run's folder.

    The one before the last counts where the last is missing or damaged.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    files = [path / name for name in (BEST, EARLIER_BEST, LAST, PREVIOUS) if (path / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{path}: no checkpoint in this folder; a run has {BEST} or {LAST}")
    is_last_of_two = files[0].name == LAST and len(files) > 1
    return files[1] if is_last_of_two and is_damaged(files[0]) else files[0]


def has_last(folder: Path) -> bool:
    """Tell whether the folder of a run has a checkpoint to go on from."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


class LastCheckpoint(NamedTuple):
    """A checkpoint to go on from: its file, and its content as ``read_checkpoint`` returns it."""

    path: Path
    content: dict[str, Any]


def read_last(folder: Path, note: Callable[[str], None] | None = None) -> LastCheckpoint:
    """Read the last checkpoint of a run; where it is damaged, or was lost, the one before it.

    Args:
        folder: of the run.
        note: hears that it is the one before.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, and so is the one before, or there is none.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        return LastCheckpoint(last, read_checkpoint(last))
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) or not previous.is_file():
            raise
        reason = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        try:
            content = read_checkpoint(previous)
        except ValueError as second:
            raise ValueError(f"{folder}: {LAST} {reason}, and the checkpoint before it is no help: {second}") from error
    if note is not None:
        note(f"{last} {reason}: the checkpoint before it is taken, {previous}")
    return LastCheckpoint(previous, content)


def categories_of(content: Mapping[str, Any]) -> list[Category]:
    """Read the categories of a checkpoint's content."""
    return [Category(int(number), str(name)) for number, name in content["categories"]]


def passport_of(content: Mapping[str, Any]) -> Passport | None:
    """Read the passport of a checkpoint's content; those of format 1 and 2 have none."""
    passport = content.get("passport")
    return None if passport is None else Passport.from_dict(passport)


def tuning_of(content: Mapping[str, Any]) -> ScoreTuning | None:
    """Read the tuned scores of a checkpoint's content; None where they were not tuned."""
    tuning = content.get("tuning")
    return None if tuning is None else ScoreTuning.from_dict(tuning, len(content["categories"]))


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Take the weights to predict with: the moving average, where there is one."""
    weights: Mapping[str, Tensor] = content.get("ema") or content["model"]
    return weights


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a checkpoint or the folder of a run")
    verify_checksum(path)
    content, header = read_tensor_file(path)
    if header.get("format") != FORMAT:
        return content
    try:
        values = {
            name: text if name == "format" else json.loads(text) for name, text in header.items() if name != CHECKSUM
        }
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: a damaged checkpoint: its header is not readable as JSON") from error
    return {**values, "model": content}
