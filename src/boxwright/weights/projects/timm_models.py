"""Pretrained models of timm: their names, their files and the preprocessing that they were trained with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import timm

_HASH = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$")

_OWN = ("/rwightman/", "/pytorch-image-models/")
"""In addresses of files that have timm's names; it refers to files of others too."""


class TimmModel(NamedTuple):
    """A model of timm, and what its weights expect.

    Args:
        architecture: name of the network.
        tag: of the weights; empty where they are not known.
        mean: of the channels, RGB with values in [0, 1].
        std: of the channels.
        license: as timm states it.
        hub: OWNER/NAME of its repository.
        url: of its file elsewhere.
    """

    architecture: str
    tag: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str | None = None
    hub: str | None = None
    url: str | None = None

    @property
    def name(self) -> str:
        """Architecture and tag, as timm writes them."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    @property
    def sha256_prefix(self) -> str | None:
        """The first digits of the SHA-256 of its file, which its address ends in."""
        matched = _HASH.search(self.url or "")
        return None if matched is None else matched[1]


def find_timm_model(name: str) -> TimmModel:
    """Find a model by NAME or NAME.TAG; without a tag, with timm's first choice of weights.

    Raises:
        ValueError: no such model, or no weights of it; the line names the nearest.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"timm:{name}: timm has no model {architecture}; "
            + (f"nearest: {', '.join(near)}" if near else "see timm.list_models()")
        )
    try:
        return _make(timm.get_pretrained_cfg(name if tag else architecture))
    except (RuntimeError, AttributeError) as error:
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
        known = f"its weights are tagged {', '.join(tags)}" if tags else "there are none"
        raise ValueError(f"timm:{name}: timm knows no such weights; {known}") from error


def timm_model_of_file(sha256: str | None) -> TimmModel | None:
    """Find the model whose released file has this SHA-256."""
    return (
        None
        if sha256 is None
        else next((model for prefix, model in _released_files().items() if sha256.startswith(prefix)), None)
    )


def timm_model_of_config(config: Mapping[str, Any]) -> TimmModel | None:
    """Read the ``config.json`` of a repository of timm's; None where it is of another kind."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture.partition(".")[0]):
        return None
    name, _, tag = architecture.partition(".")
    stated = config.get("pretrained_cfg")
    values = stated if isinstance(stated, Mapping) else config
    mean, std = (_triple(values.get(key)) for key in ("mean", "std"))
    known = find_timm_model(name)
    tag = str(values.get("tag") or tag)
    return TimmModel(name, tag, mean or known.mean, std or known.std, _text(values.get("license")))


@cache
def _released_files() -> dict[str, TimmModel]:
    models = [_make(timm.get_pretrained_cfg(name)) for name in timm.list_pretrained()]
    return {
        model.sha256_prefix: model
        for model in models
        if model.sha256_prefix and any(part in (model.url or "") for part in _OWN)
    }


def _make(config: Any) -> TimmModel:
    return TimmModel(
        architecture=config.architecture,
        tag=config.tag or "",
        mean=tuple(config.mean),
        std=tuple(config.std),
        license=_text(config.license),
        hub=_text(config.hf_hub_id),
        url=_text(config.url),
    )


def _triple(value: Any) -> tuple[float, float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        return (float(value[0]), float(value[1]), float(value[2]))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
