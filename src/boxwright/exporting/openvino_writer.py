"""Nodes of OpenVINO in place of those that its conversion of ONNX makes."""

from __future__ import annotations

from typing import Any

import numpy as np


def keep_precise(node: Any) -> None:
    """Let a node be computed in float32 where all else is computed in bfloat16.

    It has an effect on the file, once that is read again, and none on the model in memory.
    """
    node.get_rt_info()["precise_0"] = True


class OpenVinoWriter:
    """The few operators that it takes, of names with a prefix, computed in float32 also where all else is in bfloat16.

    Args:
        package: OpenVINO.
        prefix: of the new nodes' names.
    """

    def __init__(self, package: Any, prefix: str) -> None:
        self.package, self.prefix, self._count = package, prefix, 0

    def __call__(self, kind: str, *inputs: Any, **options: Any) -> Any:
        """Write a node of a kind."""
        return self.named(getattr(self.package.opset11, kind)(*inputs, **options), kind)

    def named(self, node: Any, kind: str) -> Any:
        """Name a node that was written elsewhere."""
        self._count += 1
        node.set_friendly_name(f"{self.prefix}_{kind}_{self._count}")
        keep_precise(node)
        return node

    def whole(self, values: int | list[int]) -> Any:
        """Write whole numbers."""
        return self("constant", np.array(values, dtype=np.int64))

    def shape_of(self, value: Any) -> Any:
        """Return the shape of a value, int64."""
        return self("shape_of", value)

    def pick(self, vector: Any, index: int) -> Any:
        """Take one number, (1), out of a vector."""
        return self("gather", vector, self.whole([index]), self.whole(0))

    def reshape(self, value: Any, shape: list[Any]) -> Any:
        """Reshape to numbers and nodes (1); 0 keeps the length of the axis at that place."""
        parts = [self.whole([one]) if isinstance(one, int) else one for one in shape]
        return self("reshape", value, self("concat", parts, axis=0), special_zero=True)

    def swap(self, images: Any) -> Any:
        """Exchange rows and columns of images with channels last."""
        return self("transpose", images, self.whole([0, 2, 1, 3]))

    def count_up(self, stop: Any) -> Any:
        """Return 0, 1, ... up to a number (1), which is not among them."""
        last = self("squeeze", stop, self.whole([0]))
        return self("range", self.whole(0), last, self.whole(1), "i64")

    def divide_up(self, value: Any, divisor: Any) -> Any:
        """Divide positive whole numbers, rounded up."""
        return self("divide", self("subtract", self("add", value, divisor), self.whole([1])), divisor)
