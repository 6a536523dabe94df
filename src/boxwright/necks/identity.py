"""No neck: the levels of the backbone as they are."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.structures import Features, Spec

__all__ = ["Identity"]


class Identity(nn.Module):
    """Hands the levels on unchanged."""

    def __init__(self, in_spec: Spec) -> None:
        super().__init__()
        self.out_spec: Spec = dict(in_spec)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        return features
