"""The folder of sharded results: what is predicted, and which shards are complete.

``manifest.json`` says what is predicted, as hashes. Each shard is a file of results, and beside it a record, which is
written after it: a shard with a record is complete, and a process may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from boxwright.files import UNFINISHED, replace_file, write_text
from boxwright.version import __version__
from boxwright_runtime.printable_names import printable

MANIFEST = "manifest.json"
UNREADABLE = "unreadable.jsonl"
"""List of the images that could not be read, in the same folder."""

ShardFormat = Literal["parquet", "coco"]

_SUFFIXES = {"parquet": ".parquet", "coco": ".json"}
_RECORD = ".done"
_COMPLETE = re.compile(r"shard-\d+-of-\d+\.(?:parquet|json|done)")
_ATTEMPT = re.compile(rf"{_COMPLETE.pattern}\.[0-9a-f]{{12}}(?:{re.escape(UNFINISHED)})?")
_IMAGES_OF_SHARD = 1000


@dataclass(frozen=True)
class ShardedResults:
    """A folder for results, one file a shard.

    Args:
        folder: of the files.
        format: ``parquet``, a row for each image with all of its detections; or ``coco``, lists in COCO's results form.
        shards: number of files, no more than there are images; where None, one for a thousand images.

    Raises:
        ValueError: there is no such format, or a number below 1.
    """

    folder: str | Path
    format: ShardFormat = "parquet"
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.format not in _SUFFIXES:
            raise ValueError(f"results are written as parquet or coco, not {self.format!r}")
        if self.shards is not None and self.shards < 1:
            raise ValueError(f"shards is at least 1, not {self.shards}")

    def count_shards(self, num_images: int) -> int:
        """Return the number of files for so many images."""
        return min(num_images, self.shards or -(-num_images // _IMAGES_OF_SHARD))


@dataclass(frozen=True)
class ShardManifest:
    """All that results depend on.

    Args:
        version: of Boxwright.
        num_images: in all shards.
        num_shards: files of results.
        inputs: hash of the images.
        model: hash of the model.
        options: of the prediction, by their names.
    """

    version: str
    num_images: int
    num_shards: int
    inputs: str
    model: str
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A hash of all of this, that the records of its shards have."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Write the text of the file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def range_of(self, shard: int) -> range:
        """Return the indices of the images of a shard."""
        bounds = (self.num_images * number // self.num_shards for number in (shard, shard + 1))
        return range(*bounds)


@dataclass(frozen=True)
class ShardRecord:
    """Counts of a complete shard.

    Args:
        key: of the manifest.
        num_images: that were predicted.
        num_detections: in the file.
        best_score: of all detections, also of those that are left out; None where there are none.
        num_bytes: of the file of results.
        unreadable: name of each image that could not be read, and the reason.
    """

    key: str
    num_images: int
    num_detections: int
    best_score: float | None
    num_bytes: int
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ShardFolder:
    """The files of sharded results.

    Args:
        path: of the folder.
        manifest: what they are results of.
    """

    path: Path
    manifest: ShardManifest

    def results_path(self, shard: int) -> Path:
        """Return the path of a shard's file of results."""
        return self.path / f"{self._stem(shard)}{_SUFFIXES[self.manifest.options['format']]}"

    def begin(self, *, resume: bool) -> None:
        """Write the manifest, or compare it with that of the shards that are there; remove what was left unfinished.

        Raises:
            ValueError: there are shards, which are not to be resumed or are of something else.
        """
        path = self.path / MANIFEST
        before = _read_manifest(path) if path.exists() else None
        if not any(_COMPLETE.fullmatch(name) for name in os.listdir(self.path)):
            write_text(path, self.manifest.to_json())
        elif before is None:
            raise ValueError(f"{self.path}: there are shards without {MANIFEST}: give another folder")
        elif not resume:
            raise ValueError(
                f"{self.path}: there are results already: --resume goes on with them, or give another folder"
            )
        else:
            self._compare(before)
        self.clean()

    def clean(self) -> None:
        """Remove what processes that were killed have left unfinished, and nothing else: archives are shards too."""
        for name in os.listdir(self.path):
            if _ATTEMPT.fullmatch(name):
                (self.path / name).unlink(missing_ok=True)

    def is_here(self) -> bool:
        """Tell whether the manifest is in the folder, as it should be on every machine."""
        try:
            return _read_manifest(self.path / MANIFEST) == self.manifest
        except (OSError, ValueError):
            return False

    def finish_shard(self, shard: int, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """Write the results of a shard, and its record after them.

        Args:
            shard: its number.
            write: writes the results into the file that it is called with.

        Raises:
            ValueError: the folder is another run's by now.
        """
        records: list[ShardRecord] = []
        path = self.results_path(shard)

        def write_own(unfinished: Path) -> None:
            records.append(write(unfinished))
            if not self.is_here():
                raise ValueError(f"{self.path / MANIFEST} is gone, or that of another run: give another folder")

        _replace_by_attempt(path, write_own)
        record = replace(records[0], key=self.manifest.key, num_bytes=path.stat().st_size)
        text = json.dumps(asdict(record)) + "\n"
        _replace_by_attempt(self._record_path(shard), lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
        return record

    def read_record(self, shard: int) -> ShardRecord | None:
        """Read what became of a shard; None where it is not complete."""
        try:
            record = ShardRecord(**json.loads(self._record_path(shard).read_text(encoding="utf-8")))
            size = self.results_path(shard).stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return record if (record.key, record.num_bytes) == (self.manifest.key, size) else None

    def write_unreadable(self) -> Path | None:
        """List the images of all shards that could not be read in one file; None where all could."""
        path = self.path / UNREADABLE
        rows = self._list_unreadable()
        first = next(rows, None)
        if first is None:
            path.unlink(missing_ok=True)
            return None

        def write(unfinished: Path) -> None:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(first)
                file.writelines(rows)

        replace_file(path, write)
        return path

    def _list_unreadable(self) -> Iterator[str]:
        for shard in range(self.manifest.num_shards):
            record = self.read_record(shard)
            for name, reason in () if record is None else record.unreadable:
                yield json.dumps({"file_name": name, "reason": reason}) + "\n"

    def _record_path(self, shard: int) -> Path:
        return self.path / f"{self._stem(shard)}{_RECORD}"

    def _stem(self, shard: int) -> str:
        return f"shard-{shard:05d}-of-{self.manifest.num_shards:05d}"

    def _compare(self, before: ShardManifest) -> None:
        now = self.manifest
        differences = [
            f"{name} {_show(before.options.get(name))}, now {_show(now.options.get(name))}"
            for name in sorted({*before.options, *now.options})
            if before.options.get(name) != now.options.get(name)
        ]
        if before.version != now.version:
            differences.append(f"Boxwright {before.version}, now {now.version}")
        if before.num_images != now.num_images:
            differences.append(f"{before.num_images:,} images, now {now.num_images:,}")
        elif before.inputs != now.inputs:
            differences.append("other images, or images that were changed since")
        if before.num_shards != now.num_shards and before.num_images == now.num_images:
            differences.append(f"{before.num_shards} shards, now {now.num_shards}")
        if before.model != now.model:
            differences.append("another model")
        if differences:
            raise ValueError(f"{self.path}: its results are of {'; '.join(differences)}: give another folder")


def make_manifest(
    num_images: int, num_shards: int, inputs: str, model: str, options: Mapping[str, Any]
) -> ShardManifest:
    """Describe results of this version; options become what JSON has of them."""
    return ShardManifest(__version__, num_images, num_shards, inputs, model, json.loads(json.dumps(options)))


def _read_manifest(path: Path) -> ShardManifest:
    try:
        manifest = ShardManifest(**json.loads(path.read_text(encoding="utf-8")))
        manifest.options.get("format")
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged, or no manifest of shards: give another folder") from None
    return manifest


def _show(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value))


def _replace_by_attempt(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file by a name that no other process has: one that was given up may still write."""
    attempt = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        replace_file(attempt, write)
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
