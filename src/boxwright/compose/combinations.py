"""Combinations of parts, tried by building them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from boxwright.compose.parts import Folder, find_part, list_parts
from boxwright.structures import Spec, levels_for_head, main_levels


class Combination(NamedTuple):
    """Three parts by name; ``problem`` says in one line why they do not fit, and is None where they do."""

    backbone: str
    neck: str
    head: str
    problem: str | None


def combinations(num_classes: int = 80) -> Iterator[Combination]:
    """Try every backbone with every neck and every head, each with its default options.

    They are built without storage, so that it takes seconds.
    """
    with torch.device("meta"):
        for backbone in list_parts("backbones"):
            from_backbone = _build("backbones", backbone)
            for neck in list_parts("necks"):
                from_neck = _next("necks", neck, from_backbone)
                for head in list_parts("heads"):
                    built = _next("heads", head, from_neck, num_classes)
                    yield Combination(backbone, neck, head, built if isinstance(built, str) else None)


def _next(folder: Folder, name: str, before: list[Spec] | str, *wiring: Any) -> list[Spec] | str:
    if isinstance(before, str):
        return before
    in_spec = levels_for_head(before) if folder == "heads" else main_levels(before[-1])
    built = _build(folder, name, in_spec, *wiring)
    return built if isinstance(built, str) else [*before, *built]


def _build(folder: Folder, name: str, *wiring: Any) -> list[Spec] | str:
    """Build a part: list the levels that it puts out, none for a head; or say why it cannot be built."""
    try:
        part = find_part(folder, name)(*wiring)
    except ValueError as error:
        return f"{folder[:-1]} {name}: {error}"
    return [] if folder == "heads" else [dict(part.out_spec)]
