"""Files of other projects, read without executing anything in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from boxwright.passport import Origin
from boxwright.stand_ins import StandIn, to_plain
from boxwright.tensor_files import read_tensor_file
from boxwright.weights.carried_passport import take_passport
from boxwright.weights.source import SourceFiles

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a folder in Hugging Face layout; the first that is there counts."""

INDEX = ".index.json"
"""End of the name of a file that says which of several files each tensor is in, behind the name of the weights."""

WRAPPERS = (
    ("ema", "module"),
    ("ema",),
    ("model_ema",),
    ("state_dict_ema",),
    ("state_dict",),
    ("model",),
    ("model_state_dict",),
    ("module",),
)
"""Keys around the weights in files of torch's own format; the first that leads to tensors counts."""

WRAPPED_NAMES = {"module.": "a model for several devices, or a moving average", "_orig_mod.": "a compiled model"}
"""Before every name where weights were saved out of a model in a wrapper; taken off."""

COUNTERS = ("n_averaged",)
"""Beside the names in a wrapper: how many weights ``torch.optim.swa_utils.AveragedModel`` has averaged."""

_MODEL_KEYS = frozenset(("model_type", "architectures", "architecture"))
"""Keys that the configuration of a model has, and no other file of the same name."""

MAX_JSON = 16 * 1024 * 1024
"""Bytes of a JSON file that are read: a configuration has thousands."""


def read_source_files(path: str | Path) -> SourceFiles:
    """Read a file of weights, or a folder in Hugging Face layout.

    A configuration beside a file counts too, unless it is that of other weights in the folder.

    Raises:
        FileNotFoundError: nothing there, or no file of weights in the folder.
        ValueError: not a file of weights, or a damaged one.
    """
    path = Path(path)
    parts = find_weights(path)
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    header: dict[str, str] = {}
    for part in parts:
        try:
            read = read_tensor_file(part)
            of_part, beside = _unwrap(read.content)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(str(part)) else f"{part}: {text}") from error
        tensors |= of_part
        extra |= beside
        header |= read.metadata
    folder = path if path.is_dir() else path.parent
    has_config = path.is_dir() or _has_own_config(path)
    tensors, notes = _take_off_prefixes(tensors)
    passport, of_passport = take_passport({**extra, **header})
    return SourceFiles(
        origin=Origin(source=str(path), kind="", sha256=_sha256_of(parts)),
        tensors=tensors,
        extra=extra,
        config=read_json(folder / CONFIG) if has_config else {},
        preprocessor=read_json(folder / PREPROCESSOR) if has_config else {},
        notes=[*notes, *of_passport],
        passport=passport,
    )


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(path: Path) -> list[Path]:
    """List the files of weights: one, or the parts that the index of a folder names.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: an index that names files elsewhere.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return [path]
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}{INDEX}").is_file():
            return _find_parts(path, path / f"{name}{INDEX}")
    raise FileNotFoundError(f"{path}: no weights in this folder; it would have one of {', '.join(WEIGHT_FILES)}")


def names_in_index(index: Path) -> list[str]:
    """Read the names of the files that an index lists, each once.

    Raises:
        ValueError: a name is no plain name of a file in the same folder.
    """
    content = read_json(index).get("weight_map")
    names = list(dict.fromkeys(content.values())) if isinstance(content, Mapping) else []
    if not names or not all(isinstance(name, str) and name and Path(name).name == name != ".." for name in names):
        raise ValueError(f"{index}: a damaged index; its weight_map has to name files of the same folder")
    return names


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping from a JSON file; an empty one where there is none.

    Raises:
        ValueError: not JSON, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: should be a mapping of JSON, and is a {type(content).__name__}")
    return content


def _has_own_config(file: Path) -> bool:
    """Tell whether the configuration beside a file is of it.

    In Hugging Face layout it is that of the files with the layout's names; else a lone file has the one beside it, if
    that says what model it is of.
    """
    if file.name in WEIGHT_FILES:
        return True
    is_layout = any((file.parent / f"{name}{end}").is_file() for name in WEIGHT_FILES for end in ("", INDEX))
    return not is_layout and not _MODEL_KEYS.isdisjoint(read_json(file.parent / CONFIG))


def _find_parts(folder: Path, index: Path) -> list[Path]:
    parts = [folder / name for name in names_in_index(index)]
    for part in parts:
        if not part.is_file():
            raise FileNotFoundError(f"{part}: no such file, and {index.name} says that tensors are in it")
    return parts


def _sha256_of(parts: list[Path]) -> str:
    """Of several files, the SHA-256 of the list of theirs."""
    digests = [file_sha256(part) for part in parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _unwrap(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the tensors out of what is around them; return also the plain values beside them.

    Raises:
        ValueError: there are no tensors by name.
    """
    if isinstance(content, StandIn):
        raise ValueError(
            f"holds a whole object ({content.path}), which would have to be executed; save its state_dict() alone"
        )
    if not isinstance(content, Mapping):
        raise ValueError(f"holds a {type(content).__name__}, not tensors by name")
    for keys in WRAPPERS:
        inner: Any = content
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if tensors := _tensors_in(inner):
            return tensors, to_plain({key: value for key, value in content.items() if key != keys[0]})
    if not (tensors := _tensors_in(content)):
        names = ", ".join(str(key) for key in list(content)[:3]) or "nothing"
        raise ValueError(f"holds no tensors by name; it holds {names}")
    return tensors, to_plain({key: value for key, value in content.items() if key not in tensors})


def _tensors_in(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {
        name: value.detach() for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)
    }


def _take_off_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take what wrappers put before every name off, and their counters; return also a note of each."""
    notes: list[str] = []
    while prefix := _common_prefix(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name not in COUNTERS}
        notes.append(f"its names began with {prefix}, of {WRAPPED_NAMES[prefix]}; that was taken off")
    return tensors, notes


def _common_prefix(tensors: dict[str, Tensor]) -> str | None:
    names = [name for name in tensors if name not in COUNTERS]
    return next((one for one in WRAPPED_NAMES if names and all(name.startswith(one) for name in names)), None)
