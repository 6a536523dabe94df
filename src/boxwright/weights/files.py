"""Files of other projects, read without executing anything in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from boxwright.passport import Origin
from boxwright.weights.source import SourceFiles

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a folder in Hugging Face layout; the first that is there counts."""

WRAPPERS = (("ema", "module"), ("ema",), ("state_dict",), ("model",))
"""Keys around the weights in files of torch's own format; the first that leads to tensors counts."""


def read_source_files(path: str | Path) -> SourceFiles:
    """Read a file of weights, or a folder in Hugging Face layout.

    Raises:
        FileNotFoundError: nothing there, or no file of weights in the folder.
        ValueError: not a file of weights, or a damaged one.
    """
    path = Path(path)
    weights = _find_weights(path)
    content = load_file(weights) if weights.suffix == ".safetensors" else _read_torch(weights)
    tensors, extra = _unwrap(content)
    folder = path if path.is_dir() else None
    return SourceFiles(
        origin=Origin(source=str(path), kind="", sha256=file_sha256(weights)),
        tensors=tensors,
        extra=extra,
        config=_read_json(folder, CONFIG),
        preprocessor=_read_json(folder, PREPROCESSOR),
    )


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_weights(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path}: no weights in this folder; it would have one of {', '.join(WEIGHT_FILES)}")


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the tensors out of what is around them; return also the plain values beside them."""
    for keys in WRAPPERS:
        inner = content
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            tensors = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
            return tensors, {key: value for key, value in content.items() if key != keys[0]}
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}, {}


def _read_json(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
