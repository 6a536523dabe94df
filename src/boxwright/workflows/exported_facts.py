"""Facts of an exported file, read from its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.compose.values import plain
from boxwright.passport import Passport
from boxwright_runtime.exported_file import FileKind, read_exported_file
from boxwright_runtime.metadata import Metadata


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Facts of an exported file.

    Args:
        path: of the file.
        kind: ``onnx`` or ``openvino``.
        num_bytes: size of the file, and of the one with its weights where that is another.
        metadata: what Boxwright wrote into it.
        passport: origin and history of the weights; None where they are not known.
    """

    path: Path
    kind: FileKind
    num_bytes: int
    metadata: Metadata
    passport: Passport | None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``."""
        own = self.metadata
        return {
            "file": str(self.path),
            "kind": self.kind,
            "num_bytes": self.num_bytes,
            "version": own.version,
            "task": own.task,
            "profile": own.profile,
            "precision": own.precision,
            "ops": own.ops,
            "masks": own.masks is not None,
            "categories": [{"id": category.id, "name": category.name} for category in own.categories],
            "thresholds": own.thresholds,
            "input": plain(own.input_format),
            "recipe": own.recipe,
            "passport": None if self.passport is None else self.passport.to_dict(),
            "float32_nodes": list(own.float32_nodes),
        }


def read_file_facts(path: str | Path) -> FileFacts:
    """Read the facts of an exported file; neither it nor any runtime is loaded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no exported file, is damaged, or was written by a newer version.
    """
    file = read_exported_file(path)
    files = [file.path] if file.kind == "onnx" else [file.path, file.path.with_suffix(".bin")]
    passport = None if file.metadata.passport is None else Passport.from_dict(dict(file.metadata.passport))
    return FileFacts(
        path=file.path,
        kind=file.kind,
        num_bytes=sum(one.stat().st_size for one in files),
        metadata=file.metadata,
        passport=passport,
    )
