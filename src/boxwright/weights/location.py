"""Sources of weights as users name them: a run, a file, a folder, or a model in another project's repository."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from boxwright.checkpoints import FORMAT, find_checkpoint, is_checkpoint, is_run
from boxwright.passport import Origin, Passport
from boxwright.weights.files import WEIGHT_FILES, file_sha256, read_source_files
from boxwright.weights.source import SourceFiles
from boxwright.weights.source_names import OPENERS, missing_source
from boxwright_runtime.exported_file import is_exported_name


class OwnCheckpoint(NamedTuple):
    """A checkpoint of ours: its file, and where that comes from."""

    path: Path
    origin: Origin

    def complete(self, passport: Passport | None) -> Passport:
        """Add the repository to the passport of the checkpoint, unless it names an origin of its own.

        One that lies here is known by its file, wherever that is moved.
        """
        passport = passport or Passport(version="unknown")
        is_downloaded = self.origin.source != str(self.path)
        return dataclasses.replace(passport, origin=passport.origin or self.origin) if is_downloaded else passport


def open_source(source: str | Path) -> SourceFiles | OwnCheckpoint:
    """Find and read the files of a model of another project; or find the checkpoint, if it is of ours.

    Args:
        source: the folder of a run, a checkpoint, a file of weights, a folder in Hugging Face layout; or, which is
            downloaded unless it is in the cache, ``hf:OWNER/NAME[@REVISION]``, ``torchvision:NAME`` or
            ``timm:NAME[.TAG]``.

    Returns:
        Files of another project, or a checkpoint of ours.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not weights, or damaged ones; in one line.
    """
    opener, colon, name = str(source).partition(":")
    if colon and opener in _OPENERS and isinstance(source, str):
        return _OPENERS[opener](name)
    path = Path(source).expanduser()
    if is_run(path):
        return _own(find_checkpoint(path))
    for own in (path, path / WEIGHT_FILES[0]):
        if is_checkpoint(own):
            return _own(own)
    if not path.exists():
        raise missing_source(source)
    if is_exported_name(path):
        raise ValueError(
            f"{source} is an exported file, of which no weights are loaded: boxwright_runtime.Runtime, predict, eval, "
            "info and bench take it as it is; for anything else, give the model that it was exported from"
        )
    files = read_source_files(path)
    # Here and below where it is needed: importing timm, torchvision or the client of the hub takes seconds.
    from boxwright.weights.projects.timm_models import timm_model_of_file

    model = timm_model_of_file(files.origin.sha256)
    return files if model is None else dataclasses.replace(files, release=f"timm:{model.name}")


def _open_hub(name: str) -> SourceFiles | OwnCheckpoint:
    repository, _, revision = name.partition("@")
    return _read_snapshot(f"hf:{name}", repository, revision or None)


def _open_torchvision(name: str) -> SourceFiles:
    from boxwright.weights.download import fetch_file
    from boxwright.weights.projects.torchvision_releases import find_release

    release = find_release(name)
    source = f"torchvision:{name}"
    files = read_source_files(fetch_file(release.url, release.sha256_prefix or None, source=source))
    return _named(files, source, license=release.license)


def _open_timm(name: str) -> SourceFiles | OwnCheckpoint:
    from boxwright.weights.download import fetch_file
    from boxwright.weights.projects.timm_models import find_timm_model

    model = find_timm_model(name)
    source = f"timm:{name}"
    if model.hub is not None:
        repository, _, revision = model.hub.partition("@")
        opened = _read_snapshot(source, repository, revision or None)
    elif model.url is not None:
        opened = read_source_files(fetch_file(model.url, model.sha256_prefix, source=source))
    else:
        raise ValueError(f"{source}: timm has this network, but no weights of it")
    return (
        opened
        if isinstance(opened, OwnCheckpoint)
        else _named(opened, source, release=f"timm:{model.name}", license=model.license)
    )


def _read_snapshot(source: str, repository: str, revision: str | None) -> SourceFiles | OwnCheckpoint:
    from boxwright.weights.hub import fetch_snapshot

    snapshot = fetch_snapshot(repository, revision, source=source)
    weights = snapshot.weights
    files = None if is_checkpoint(weights) else read_source_files(snapshot.folder)
    origin = Origin(
        source=source,
        kind=FORMAT if files is None else "",
        revision=snapshot.revision,
        sha256=file_sha256(weights) if files is None else files.origin.sha256,
        license=snapshot.license,
    )
    return OwnCheckpoint(weights, origin) if files is None else dataclasses.replace(files, origin=origin)


def _own(path: Path) -> OwnCheckpoint:
    return OwnCheckpoint(path, Origin(source=str(path), kind=FORMAT))


def _named(files: SourceFiles, source: str, *, release: str | None = None, license: str | None = None) -> SourceFiles:
    """Say what the user named, and the license, if the files state none."""
    origin = dataclasses.replace(files.origin, source=source, license=files.origin.license or license)
    return dataclasses.replace(files, origin=origin, release=release or source)


_OPENERS = dict(zip(OPENERS, (_open_hub, _open_torchvision, _open_timm), strict=True))
