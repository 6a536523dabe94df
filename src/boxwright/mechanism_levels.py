"""Cells of levels, and maps of numbers for all of them, in explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

POSITIONS = {"positions": True}
"""Marks fields of points (x, y) and corner boxes (x1, y1, x2, y2) in pixels."""


@dataclass(frozen=True, eq=False)
class LevelCell:
    """A cell of a level.

    Args:
        level: its name.
        row: from 0, at the top.
        column: from 0, at the left.
        box: the pixels that it stands for.
    """

    level: str
    row: int
    column: int
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)

    @classmethod
    def of(cls, level: str, stride: int, row: int, column: int) -> LevelCell:
        """Make a cell of a level of this stride, in pixels of the network input."""
        corners = torch.tensor([column, row, column + 1, row + 1], dtype=torch.float32) * stride
        return cls(level, row, column, corners)

    @classmethod
    def of_index(
        cls, names: Sequence[str], strides: Sequence[int], shapes: Sequence[tuple[int, int]], index: int
    ) -> LevelCell:
        """Make the cell of an index among the cells of all levels, row by row.

        Args:
            names: of the levels.
            strides: of the levels.
            shapes: (height, width) of their maps.
            index: from 0.
        """
        for name, stride, (height, width) in zip(names, strides, shapes, strict=True):
            if index < height * width:
                return cls.of(name, stride, index // width, index % width)
            index -= height * width
        raise IndexError("there are fewer cells")

    def index_among(self, names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> int:
        """Return its index among the cells of all levels, row by row; ``of_index`` makes it again.

        Args:
            names: of the levels.
            shapes: (height, width) of their maps.
        """
        level = names.index(self.level)
        return sum(height * width for height, width in shapes[:level]) + self.row * shapes[level][1] + self.column

    @classmethod
    def at(cls, level: str, stride: int, shape: tuple[int, int], point: tuple[float, float]) -> LevelCell:
        """Make the cell at (x, y) in pixels of the network input; the nearest where it lies outside.

        Args:
            level: its name.
            stride: of the level.
            shape: (height, width) of its map.
            point: in pixels of the network input.
        """
        column, row = (int(min(max(at // stride, 0), side - 1)) for at, side in zip(point, shape[::-1], strict=True))
        return cls.of(level, stride, row, column)


@dataclass(frozen=True, eq=False)
class LevelMap:
    """A number for each cell of a level.

    Args:
        values: of the cells.
        box: the pixels that all of them stand for.
    """

    values: Float[Tensor, "h w"]
    box: Float[Tensor, " 4"] = field(metadata=POSITIONS)

    @classmethod
    def of(cls, values: Float[Tensor, "h w"], stride: int) -> LevelMap:
        """Make the map of a level of this stride, in pixels of the network input."""
        height, width = values.shape
        return cls(values.float().cpu(), torch.tensor([0.0, 0.0, width, height]) * stride)
