"""Operations of a training step for which a GPU's work would have to be waited for: few, and no more than are listed.

Each reads a number on the side of Python, or makes a tensor whose size depends on numbers. Counted on a CPU, with what
the matcher does once its costs have come from the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import boxwright
from boxwright.compose.recipes import resolve
from boxwright.structures import Batch, ImageSize, Targets
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step

SIDE = 128
CPU = torch.device("cpu")

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}

MOST = {
    # The matcher reads its costs once, and solves them on the CPU; the step reads its losses and the gradient's norm.
    "rtdetr_tiny": 7,
    "detr_r50": 7,
    "deformable_detr_r50_two_stage": 12,
    "retinanet_r18_fpn": 8,
    "fcos_r50_fpn": 8,
    "efficientdet_d0": 19,
    # Proposals are suppressed, and regions drawn, image by image.
    "faster_rcnn_r18_fpn": 36,
}


class _Counting:
    """A mode of torch with counts by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()


class Waits(_Counting, TorchDispatchMode):
    """Counts the operations that wait."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        by_mask = func in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
        if func in WAITING or by_mask:
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Reads(_Counting, TorchFunctionMode):
    """Counts what reads a whole tensor, which no operator does."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy):
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def make_batch() -> Batch:
    boxes = torch.tensor([[10.0, 10, 60, 50], [30, 60, 100, 110], [70, 5, 90, 40], [5, 80, 40, 120]])
    targets = [Targets(torch.arange(n), boxes[:n], (SIDE, SIDE)) for n in (3, 4)]
    sizes = [ImageSize(SIDE, SIDE, SIDE, SIDE)] * 2
    return Batch(torch.rand(2, 3, SIDE, SIDE), None, targets, sizes, [0, 1])


@pytest.mark.parametrize("name", MOST)
def test_a_step_waits_no_more_than_this(name: str) -> None:
    torch.manual_seed(0)
    options = resolve(name, {"image_size": SIDE, "train.batch_size": 2}).recipe.train
    small = {"image_size": SIDE} | ({"backbone.depth": 18} if "r50" in name else {})
    detector = boxwright.build(name, num_classes=5, overrides=small).train()
    optimizer, batch = make_optimizer(detector, options), make_batch()
    with Waits() as waits, Reads() as reads:
        train_step(detector, detector, optimizer, batch, options, CPU)
    counts = waits.counts + reads.counts
    assert 1 < counts.total() <= MOST[name], counts
