"""Operations between the tensors of another project and one of ours, with their inverses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Operation(Protocol):
    """A way from tensors of another project to one of ours, and back."""

    @property
    def needs_all(self) -> bool:
        """True where every tensor has to be there, False where one of them is enough."""

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Make ours of theirs.

        Raises:
            ValueError: they cannot be made into one.
        """

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Make theirs of ours, as many as there are names of theirs.

        Raises:
            ValueError: there is no way back.
        """


@dataclass(frozen=True)
class Copies:
    """The same tensor under one name or several; those that are there are equal."""

    needs_all: bool = False

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Take the first, and make sure that the others equal it."""
        first, *others = tensors
        if not all(torch.equal(first, other) for other in others):
            raise ValueError("copies of one tensor differ")
        return first

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Repeat it."""
        return [tensor] * count


@dataclass(frozen=True)
class Join:
    """Tensors one after another along the first dimension, as query, key and value projections."""

    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Concatenate."""
        return torch.cat(list(tensors))

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Split into equal parts."""
        if len(tensor) % count:
            raise ValueError(f"{len(tensor)} rows are not {count} equal parts")
        return tensor.chunk(count)


@dataclass(frozen=True)
class Roll:
    """Blocks of rows in another order, by turning them: background first there, and last here.

    Args:
        rows: theirs that come last here, from the first on.
    """

    rows: int
    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Put the first rows last."""
        (tensor,) = tensors
        return tensor.roll(-self.rows, 0)

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Put the last rows first."""
        del count
        return [tensor.roll(self.rows, 0)]


@dataclass(frozen=True)
class Permute:
    """The last, flat dimension of a linear layer's weight in another order: channel after channel there, cell after
    cell here. A bias stays as it is.

    Args:
        channels: c of the map (c, s, s) that the layer takes.
    """

    channels: int
    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Bring (c h w) to (h w c)."""
        (tensor,) = tensors
        if tensor.ndim < 2:
            return tensor
        if tensor.shape[1] % self.channels:
            raise ValueError(f"{tensor.shape[1]} inputs are no maps of {self.channels} channels")
        cells: Tensor = tensor.unflatten(1, (self.channels, -1))
        return cells.transpose(1, 2).flatten(1)

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Bring (h w c) to (c h w)."""
        del count
        return [tensor if tensor.ndim < 2 else tensor.unflatten(1, (-1, self.channels)).transpose(1, 2).flatten(1)]


@dataclass(frozen=True)
class Reorder:
    """Rows in another order within each group of so many: y x h w there, x y w h here.

    Args:
        order: position there of each row here.
    """

    order: tuple[int, ...]
    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Bring their order to ours."""
        (tensor,) = tensors
        return self._apply(tensor, list(self.order))

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Bring our order to theirs."""
        del count
        return [self._apply(tensor, [self.order.index(i) for i in range(len(self.order))])]

    def _apply(self, tensor: Tensor, order: list[int]) -> Tensor:
        if len(tensor) % len(order):
            raise ValueError(f"{len(tensor)} rows are no groups of {len(order)}")
        groups: Tensor = tensor.unflatten(0, (-1, len(order)))
        return groups[:, order].flatten(0, 1)


@dataclass(frozen=True)
class AppendZeros:
    """Rows of zeros after theirs, for what ours has and theirs has not: box and mask of background, which nothing uses.

    Args:
        rows: as many.
    """

    rows: int
    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Append them."""
        (tensor,) = tensors
        return torch.cat((tensor, tensor.new_zeros(self.rows, *tensor.shape[1:])))

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Leave the last rows out, whatever they are."""
        del count
        return [tensor[: -self.rows]]


@dataclass(frozen=True)
class Pointwise:
    """The weight of a linear layer there, of a 1 x 1 convolution here. A bias stays as it is."""

    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Bring (o i) to (o i 1 1)."""
        (tensor,) = tensors
        return tensor[..., None, None] if tensor.ndim == 2 else tensor

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Bring (o i 1 1) to (o i)."""
        del count
        return [tensor.flatten(1) if tensor.ndim == 4 else tensor]


@dataclass(frozen=True)
class SubtractBias:
    """A running mean, and the bias before that norm, which it may take in: ours has no such bias."""

    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Subtract the bias from the mean."""
        mean, bias = tensors
        return mean - bias

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Give the mean, and a bias of zero."""
        del count
        return [tensor, torch.zeros_like(tensor)]


COPY = Copies()
