"""Objects and denoising queries of other projects, of which the numbers are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.queries import DenoisingQueries, draw_denoising_queries
from boxwright.structures import Targets


def use_stored_queries(monkeypatch: pytest.MonkeyPatch, stored: Mapping[str, np.ndarray]) -> None:
    """Take the denoising queries that the authors drew, so that no random generator is compared.

    Args:
        monkeypatch: of the test.
        stored: ``noised_labels`` and ``noised_boxes``, with other numbers beside them.
    """

    def read_stored(*args: Any, **options: Any) -> DenoisingQueries:
        drawn = draw_denoising_queries(*args, **options)
        labels, boxes = (torch.from_numpy(stored[f"noised_{name}"]) for name in ("labels", "boxes"))
        assert labels.shape == drawn.labels.shape
        return drawn._replace(labels=labels, boxes_cxcywh_norm=boxes)

    monkeypatch.setattr("boxwright.queries.encoder_queries.draw_denoising_queries", read_stored)


def read_targets(stored: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Targets]:
    """Read the objects of images of these (height, width): ``object_labels_0``, ``object_boxes_0`` and so on."""
    return [
        Targets(*(torch.from_numpy(stored[f"object_{name}_{i}"]) for name in ("labels", "boxes")), size)
        for i, size in enumerate(sizes)
    ]
