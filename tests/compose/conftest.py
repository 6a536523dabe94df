"""A part outside Boxwright, and small detectors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

OUTSIDE = '''
"""Parts of somebody else."""

from __future__ import annotations

from torch import nn

from boxwright.structures import Features, Spec

__all__ = ["Scaler"]


class Scaler(nn.Module):
    """Multiplies every level.

    Args:
        in_spec: what comes in.
        factor: what the levels are multiplied by.
    """

    def __init__(self, in_spec: Spec, *, factor: float = 1.0) -> None:
        super().__init__()
        if factor == 0:
            raise ValueError("factor is not 0")
        self.factor = factor
        self.out_spec = dict(in_spec)

    def forward(self, features: Features, padding_mask=None) -> Features:
        return {name: x * self.factor for name, x in features.items()}


class NotAPart:
    """No module."""
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of an importable module with parts, not imported yet."""
    (tmp_path / "somebodys_parts.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "somebodys_parts"
    sys.modules.pop("somebodys_parts", None)


@pytest.fixture
def small() -> dict[str, object]:
    """A recipe that is built in no time."""
    return {
        "backbone": {"name": "resnet_vd", "depth": 18, "width": 8},
        "neck": {"name": "hybrid_encoder", "hidden_dim": 16, "num_heads": 2, "feedforward_dim": 16},
        "head": {
            "name": "rtdetr",
            "hidden_dim": 16,
            "decoder": {"num_heads": 2, "feedforward_dim": 16, "num_layers": 1},
        },
        "input": {"image_size": 64},
    }
