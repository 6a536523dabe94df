"""Weights that torchvision has released: names, addresses and hashes, as torchvision itself lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

import timm
from torchvision.models import WeightsEnum, get_model_weights, list_models

_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")

_FAMILIES = (
    *("fasterrcnn_resnet", "maskrcnn_resnet", "retinanet_", "fcos_"),
    *("resnet", "mobilenet_v2", "resnext", "wide_resnet", "vgg"),
)
"""Beginnings of the names of models that sources here read; timm has the last three too, by the same names."""

LICENSE = "BSD-3-Clause (torchvision); terms of the data set that it was trained on may apply"
"""License as torchvision states it: the code's license, and that weights may have terms derived from the data set."""


class Release(NamedTuple):
    """Weights that torchvision has released.

    ``name`` is the full one, ``FasterRCNN_ResNet50_FPN_Weights.COCO_V1``; ``builder`` that of the function that makes
    the model, ``fasterrcnn_resnet50_fpn``. ``sha256_prefix`` are the first digits of the file's SHA-256, in its name.
    ``categories`` are by torchvision's label. ``recipes_note`` says where the training is described.
    """

    name: str
    builder: str
    url: str
    sha256_prefix: str
    categories: tuple[str, ...]
    license: str
    recipes_note: str


def find_release(name: str) -> Release:
    """Find released weights by name.

    Args:
        name: of a builder, for its default weights, ``fasterrcnn_resnet50_fpn``; of weights,
            ``FasterRCNN_ResNet50_FPN_Weights.COCO_V1``; or both, ``fasterrcnn_resnet50_fpn.COCO_V1``.

    Raises:
        ValueError: there are no such weights; the nearest names are in the line.
    """
    releases = _releases()
    name = name.removeprefix("torchvision:")
    if name in releases:
        return releases[name]
    folded = {key.lower(): key for key in releases}
    if name.lower() in folded:
        return releases[folded[name.lower()]]
    nearest = [folded[key] for key in get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    readable = ", ".join(nearest) if nearest else ", ".join(key for key in releases if "." not in key)
    kinds = ", ".join(f"{family}*" for family in _FAMILIES)
    advice = f"; timm has a network of this name: timm:{name}" if timm.is_model(name) else ""
    raise ValueError(
        f"torchvision has no weights '{name}' that can be read here; kinds that can are {kinds}; "
        f"nearest: {readable}{advice}"
    )


def release_of_file(sha256: str | None) -> Release | None:
    """Find the release that a file is, by its SHA-256; None where it is none."""
    if not sha256:
        return None
    matches = (one for one in _releases().values() if one.sha256_prefix and sha256.startswith(one.sha256_prefix))
    return next(matches, None)


@cache
def _releases() -> dict[str, Release]:
    """List the releases that sources here read, by each of their names; builders stand for their default weights."""
    named: dict[str, Release] = {}
    for builder in list_models():
        if not builder.startswith(_FAMILIES):
            continue
        for member, release in _of_builder(builder):
            named[release.name] = named[f"{builder}.{member.name}"] = release
            if member is type(member).DEFAULT:
                named[builder] = release
    return named


def _of_builder(builder: str) -> Iterator[tuple[WeightsEnum, Release]]:
    for member in get_model_weights(builder):
        if not member.meta.get("categories"):
            # VGG-16's features alone, which come from elsewhere and expect other colors.
            continue
        matched = _HASH.search(member.url)
        yield (
            member,
            Release(
                name=f"{type(member).__name__}.{member.name}",
                builder=builder,
                url=member.url,
                sha256_prefix=matched[1] if matched else "",
                categories=tuple(member.meta["categories"]),
                license=LICENSE,
                recipes_note=str(member.meta.get("recipe", "")),
            ),
        )
