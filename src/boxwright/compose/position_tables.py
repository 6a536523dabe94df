"""Tables of positions among weights that were made for another size of images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from boxwright.contracts import ResizedTables


def find_resized_tables(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """List the tables of positions whose size is another one among the weights: loading interpolates them.

    Args:
        module: that the weights are for; it may have no storage.
        weights: by its names, and others.
    """
    expected = module.state_dict()
    others = [name for name, tensor in weights.items() if name in expected and tensor.shape != expected[name].shape]
    return [name for name in others if _fits(module, name, weights[name])]


def _fits(module: nn.Module, name: str, tensor: Tensor) -> bool:
    path, _, own = name.rpartition(".")
    owner: object = module.get_submodule(path)
    return isinstance(owner, ResizedTables) and owner.fits_table(own, tensor.shape)
