"""Heads of every name on small inputs: what the contract tests of heads have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.utils import _pytree as pytree

from boxwright.compose.parts import list_parts
from boxwright.structures import Features, Targets
from part_checks import SPEC, VALID, build, maps, padding, valid_sizes
from random_weights import shake

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 5
"""Not four: a last axis of four numbers is a box."""
LIMIT = (min(height for height, _ in VALID), min(width for _, width in VALID))
"""(height, width) that objects lie in: within every image."""

MASKS = "rtdetr+masks"
heads_and_masks = pytest.mark.parametrize(
    "name",
    [
        *list_parts("heads"),
        MASKS,
        *(
            pytest.param(f"{name}+masks", marks=pytest.mark.slow)
            for name in ("deformable_detr", "detr", "dfine", "dino", "lwdetr")
        ),
    ],
)
"""With options that change what a head predicts."""


def predict(head: Any, targets: list[Targets] | None = None, *, features: Features | None = None) -> Any:
    """Run a head on padded inputs of images of other sizes."""
    features = maps() if features is None else features
    batch = len(next(iter(features.values())))
    return head(features, padding(batch), targets, valid_sizes(batch))


def tensors(output: object) -> list[Tensor]:
    """List the tensors of an output, in order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def shaken(name: str, **options: Any) -> Any:
    """Build a head with weights that are far from special, in evaluation mode."""
    head = build("heads", name, SPEC, NUM_CLASSES, **options).eval()
    shake(head)
    return head
