"""Norms and parallel branches folded into convolutions, over a whole model."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from boxwright.contracts import FoldsNorms
from boxwright.layers.conv import FrozenBatchNorm2d, fold


def fold_norms(module: nn.Module) -> None:
    """Fold every norm below ``module`` that can be, in place, for inference.

    Folded are modules that say how (``FoldsNorms``), outer ones first, and batch norms that directly follow a
    convolution in an ``nn.Sequential``. Other norms stay as they are: what calls them in which order, only their own
    module knows. ``unfolded_norms`` lists them.
    """
    for child in list(module.modules()):
        if isinstance(child, FoldsNorms):
            child.fold_norms()
    for child in list(module.modules()):
        if type(child) is nn.Sequential:
            _fold_sequence(child)


def unfolded_norms(module: nn.Module) -> list[str]:
    """List the batch norms below ``module`` by name, which after ``fold_norms`` are those that were not folded.

    They are computed as in training's evaluation: slower than folded, and as right. A norm behind a convolution that a
    module of one's own calls by itself is folded where the pair is a ``ConvNorm`` or an ``nn.Sequential``, or where
    the module has ``fold_norms``.
    """
    return [name for name, child in module.named_modules() if isinstance(child, nn.BatchNorm2d | FrozenBatchNorm2d)]


def _fold_sequence(sequence: nn.Sequential) -> None:
    for (name, layer), (next_name, following) in pairwise(list(sequence.named_children())):
        is_norm = isinstance(following, nn.BatchNorm2d | FrozenBatchNorm2d) and following.running_var is not None
        if isinstance(layer, nn.Conv2d) and is_norm:
            setattr(sequence, name, fold(layer, following))
            setattr(sequence, next_name, nn.Identity())
