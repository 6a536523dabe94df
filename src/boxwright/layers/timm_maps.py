"""The last map of any model of timm, and the images that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor


def pretrained_colors(model: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and std of the images that the weights of a model are for, RGB with values in [0, 1]."""
    config = model.pretrained_cfg
    return config["mean"], config["std"]


def pixels_per_cell(model: Any) -> int:
    """Return the pixels of each side of a cell of the model's last map."""
    if hasattr(model, "patch_embed") and hasattr(model, "num_prefix_tokens"):
        return int(model.patch_embed.patch_size[0])
    return int(model.feature_info[-1]["reduction"])


def last_map(model: Any, images: Float[Tensor, "b 3 h w"], cells: tuple[int, int]) -> Float[Tensor, "b c y x"]:
    """Return the last features of a model as a map, whether they are tokens or a map with channels first or last.

    Args:
        model: of timm.
        images: in its colors, of so many cells.
        cells: rows and columns.
    """
    features: Tensor = model.forward_features(images)
    if features.ndim == 3:
        tokens = features[:, getattr(model, "num_prefix_tokens", 0) :]
        features = tokens.transpose(1, 2).unflatten(2, cells)
    if features.shape[1] != model.num_features:
        features = features.permute(0, 3, 1, 2)
    return features
