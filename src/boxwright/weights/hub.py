"""Files of repositories of the Hugging Face hub, by its own client and in its own cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    metadata_load,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from boxwright.checkpoints import BEST, is_checkpoint
from boxwright.weights.files import CONFIG, INDEX, PREPROCESSOR, WEIGHT_FILES, names_in_index

_NAME = re.compile(r"(?!.*\.\.)\w[\w.-]*(/\w[\w.-]*)?")

_COMMIT = re.compile(r"[0-9a-f]{40}")

_CARD = "README.md"


class Snapshot(NamedTuple):
    """Files of a repository at one commit.

    Args:
        folder: in the cache of the hub's client.
        weights: the file of weights, or the index of several.
        revision: commit; None if the files were put into the cache by hand.
        license: as the model card states it.
    """

    folder: Path
    weights: Path
    revision: str | None
    license: str | None


class _UnreachableError(Exception):
    """The reason for which the hub cannot be asked for a file that is not in the cache."""


def fetch_snapshot(name: str, revision: str | None = None, *, source: str | None = None) -> Snapshot:
    """Bring configuration, weights and license of a repository into the cache, unless they are there.

    Args:
        name: OWNER/NAME.
        revision: branch, tag or commit; ``main`` where None.
        source: the model as the user named it, for messages.

    Raises:
        FileNotFoundError: no such repository, revision or weights; or the hub cannot be reached. In one line.
        ValueError: no access, or an interrupted or damaged download. In one line.
    """
    source = source or f"hf:{name}" + (f"@{revision}" if revision else "")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{source}: a model of the hub is hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    repository = _Repository(name, revision or constants.DEFAULT_REVISION, source)
    missing = ""
    try:
        weights = repository.fetch_weights()
        if weights is not None and not is_checkpoint(weights):
            missing = f"its {CONFIG} is "
            repository.fetch(CONFIG)
    except _UnreachableError as error:
        raise FileNotFoundError(
            f"{source}: {missing}not in the cache, and {error}; "
            f"put its {CONFIG} and {WEIGHT_FILES[0]} into {repository.folder}"
        ) from error
    if weights is None:
        raise FileNotFoundError(f"{source}: no weights in this repository, none of {', '.join(WEIGHT_FILES)}")
    repository.fetch_optional(PREPROCESSOR)
    card = repository.fetch_optional(_CARD)
    commit = weights.parent.name
    return Snapshot(
        folder=weights.parent,
        weights=weights,
        revision=commit if _COMMIT.fullmatch(commit) else None,
        license=None if card is None else _read_license(card),
    )


class _Repository:
    """A repository at one revision; after its first file, at the commit of that file."""

    def __init__(self, name: str, revision: str, source: str) -> None:
        self.name, self.revision, self.source = name, revision, source

    @property
    def folder(self) -> Path:
        """The folder of the cache that files are looked for in."""
        folder = Path(constants.HF_HUB_CACHE) / ("models--" + self.name.replace("/", "--"))
        commit = folder / "refs" / self.revision
        return folder / "snapshots" / (commit.read_text().strip() if commit.is_file() else self.revision)

    @cached_property
    def obstacle(self) -> str | None:
        """The reason for which the hub cannot be asked; None where it answers anything."""
        if constants.is_offline_mode():
            return "HF_HUB_OFFLINE is set"
        # Asked once, and for one answer only: the client tries five times for each file, which takes half a minute.
        url = hf_hub_url(self.name, CONFIG, revision=self.revision)
        try:
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except HfHubHTTPError:
            return None
        except Exception as error:  # Of the HTTP library, whichever the client's version has.
            return f"the hub cannot be reached ({shorten(error)})"
        return None

    def fetch_weights(self) -> Path | None:
        """Fetch the first file of weights that there is, or an index and all parts; return the file or the index."""
        unreachable: _UnreachableError | None = None
        for file in WEIGHT_FILES:
            for one in (file, f"{file}{INDEX}"):
                try:
                    weights = self.fetch(one)
                except _UnreachableError as error:
                    unreachable = error
                    continue
                if weights is None:
                    continue
                if one.endswith(INDEX):
                    for part in names_in_index(weights):
                        self.fetch(part)
                return weights
        if unreachable is not None:
            raise unreachable
        return self.fetch(BEST)

    def fetch_optional(self, file: str) -> Path | None:
        """Fetch a file that a repository may have."""
        try:
            return self.fetch(file)
        except _UnreachableError:
            return None

    def fetch(self, file: str) -> Path | None:
        """Find a file in the cache, or download it there; None where the repository has none of this name.

        The hub is asked where a revision may have moved on since, and for files that the cache knows nothing of.
        """
        cached = try_to_load_from_cache(self.name, file, revision=self.revision)
        path: Path | None
        if cached is not None and (_COMMIT.fullmatch(self.revision) or self.obstacle):
            path = Path(cached) if isinstance(cached, str) else None
        elif self.obstacle:
            raise _UnreachableError(self.obstacle)
        else:
            path = self._download(file)
        if path is not None and _COMMIT.fullmatch(path.parent.name):
            self.revision = path.parent.name
        return path

    def _download(self, file: str) -> Path | None:
        try:
            with _silence_client():
                return Path(hf_hub_download(self.name, file, revision=self.revision))
        except LocalEntryNotFoundError as error:
            self.obstacle = "the hub cannot be reached"
            raise _UnreachableError(self.obstacle) from error
        except EntryNotFoundError:
            return None
        except GatedRepoError as error:
            raise ValueError(
                f"{self.source}: a gated repository; accept its terms on its page, then `hf auth login`"
            ) from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{self.source}: no such repository on the hub; to a private one, `hf auth login` gives access"
            ) from error
        except RevisionNotFoundError as error:
            raise FileNotFoundError(f"{self.source}: the repository has no revision {self.revision}") from error
        except Exception as error:  # Of the client, of its HTTP library, and of the disk.
            raise ValueError(
                f"{self.source}: {file} could not be downloaded ({shorten(error)}); the same command goes on with it"
            ) from error


@contextmanager
def _silence_client() -> Iterator[None]:
    """Keep the client from printing a line for each try; what comes of them is an error of one line."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def shorten(error: Exception) -> str:
    """Put the reason of an error into one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _read_license(card: Path) -> str | None:
    try:
        metadata = metadata_load(card) or {}
    except Exception:  # A card is prose by anybody, and may hold any YAML.
        return None
    name = metadata.get("license_name") if metadata.get("license") == "other" else metadata.get("license")
    return str(name or metadata.get("license")) if name or metadata.get("license") else None
