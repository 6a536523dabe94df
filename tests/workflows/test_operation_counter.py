"""Counts without computing are those of torch's counter, which computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boxwright.workflows.operation_counter import OperationCounter
from boxwright.workflows.operation_counts import OPERATIONS

_IMAGES = torch.ones(2, 4, 13, 18)


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.SiLU())
        self.second = nn.Linear(8, 8, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.interpolate(self.first(images), scale_factor=2)
        tokens = self.second(maps.flatten(2).mT)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d(_IMAGES, torch.ones(6, 2, 3, 5), None, (2, 3), (1, 0), (1, 2), 2),
        lambda: F.conv1d(_IMAGES[0], torch.ones(6, 13, 3), torch.ones(6)),
        lambda: F.conv_transpose2d(_IMAGES, torch.ones(4, 3, 3, 2), None, (2, 3), (1, 0), (1, 2), 2, (2, 1)),
        lambda: _IMAGES[0, 0] @ torch.ones(18, 5),
        lambda: _IMAGES[0] @ torch.ones(4, 18, 5),
        lambda: F.linear(_IMAGES, torch.ones(5, 18), torch.ones(5)),
        lambda: torch.baddbmm(torch.ones(5), _IMAGES[0], torch.ones(4, 18, 5)),
    ],
)
def test_products_have_the_shape_and_the_count_of_those_that_are_computed(call: Callable[[], Tensor]) -> None:
    with FlopCounterMode(display=False) as computed:
        expected = call()
    counter = OperationCounter()
    with counter.counting():
        result = call()
    assert expected.any()
    assert not result.any()
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert counter.total == computed.get_total_flops() > 0


@pytest.mark.parametrize("counted", [{}, OPERATIONS])
@pytest.mark.parametrize("is_inference", [False, True])
def test_modules_have_the_counts_of_the_counter_of_torch(
    counted: dict[object, Callable[..., int]], is_inference: bool
) -> None:
    network = _Mixed().eval()
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=counted) as torchs,
    ):
        expected = network(_IMAGES)
    counter = OperationCounter(counted)
    with torch.inference_mode(is_inference), counter.counting():
        assert network(_IMAGES).shape == expected.shape
    by_module = {path: sum(counts.values()) for path, counts in torchs.get_flop_counts().items()}
    assert counter.total == by_module.pop("Global")
    assert counter.by_module == by_module
    assert counter.by_module["_Mixed.second"] < counter.by_module["_Mixed"] == counter.total
