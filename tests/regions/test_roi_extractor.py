"""Features of regions, written out level by level with torchvision's operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from boxwright.regions import roi_extractor
from boxwright.regions.box_branch import BoxBranch
from boxwright.regions.options import BoxBranchOptions, RoIOptions
from boxwright.regions.roi_extractor import RoIExtractor, RoISource, fuse_maps

CHANNELS, STRIDES, CELLS = 3, (4, 8, 16), 5


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, CHANNELS, 96 // s, 128 // s, generator=generator, dtype=torch.double) for s in STRIDES]


BOXES = torch.tensor([[3.0, 5, 17, 22], [-9, 10, 60, 50], [8, 2, 120, 95], [40, 40, 41, 90]]).double()
IMAGES = torch.tensor([0, 1, 1, 0])


def pooled(extractor: Any) -> RoIExtractor:
    torch.manual_seed(0)
    return RoIExtractor(RoISource(CHANNELS, STRIDES, RoIOptions(extractor=extractor)), output_size=CELLS).double()


def by_hand() -> list[Tensor]:
    """Every region on every level."""
    regions = torch.cat((IMAGES[:, None].double(), BOXES), 1)
    levels = zip(maps(), STRIDES, strict=True)
    return [roi_align(x, regions, CELLS, spatial_scale=1 / stride, sampling_ratio=2) for x, stride in levels]


def test_adaptive_features_are_those_of_every_level() -> None:
    features = pooled("adaptive")(maps(), BOXES, IMAGES)
    assert len(features) == pooled("adaptive").num_outputs == 3
    for ours, theirs in zip(features, by_hand(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    first, second, third = by_hand()
    torch.testing.assert_close(fuse_maps(features, "max"), torch.maximum(torch.maximum(first, second), third))
    torch.testing.assert_close(fuse_maps(features, "sum"), first + second + third)


@pytest.mark.parametrize("extractor", ["fpn_level", "adaptive"])
@pytest.mark.parametrize("ratio", [0, 3])
def test_samples_are_those_of_the_options(extractor: Any, ratio: int) -> None:
    options = RoIOptions(extractor=extractor, sampling_ratio=ratio, aligned=True)
    features = RoIExtractor(RoISource(CHANNELS, STRIDES[:1], options), output_size=CELLS)(maps()[:1], BOXES, IMAGES)
    regions = torch.cat((IMAGES[:, None].double(), BOXES), 1)
    expected = roi_align(maps()[0], regions, CELLS, 1 / STRIDES[0], ratio, True)
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-12)
    assert (expected - by_hand()[0]).abs().max() > 0.1


def test_soft_features_are_a_sum_with_a_weight_for_each_cell_and_level() -> None:
    pooling, each = pooled("soft"), by_hand()
    reduce, _, spread, _ = pooling.weigh
    hidden = F.conv2d(torch.cat(each, 1), reduce.weight, reduce.bias).relu()
    weights = 1 / (1 + torch.exp(-F.conv2d(hidden, spread.weight, spread.bias, padding=1)))
    expected = sum(weights[:, i : i + 1] * x for i, x in enumerate(each))
    (features,) = pooling(maps(), BOXES, IMAGES)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)
    assert weights.std((0, 2, 3)).min() > 0.01


def test_a_region_is_on_the_one_level_that_fits_it() -> None:
    boxes = torch.tensor([[0.0, 0, 60, 60], [0, 0, 130, 130], [0, 0, 300, 300]]).double()  # of levels 4, 8, 16
    (features,) = pooled("fpn_level")(maps(), boxes, IMAGES[:3])
    regions = torch.cat((IMAGES[:3, None].double(), boxes), 1)
    for i, (x, stride) in enumerate(zip(maps(), STRIDES, strict=True)):
        expected = roi_align(x, regions[i : i + 1], CELLS, spatial_scale=1 / stride, sampling_ratio=2)
        torch.testing.assert_close(features[i : i + 1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("extractor", ["adaptive", "soft"])
def test_levels_are_pooled_one_by_one(extractor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is laid out more than once."""
    seen = []

    def counted(levels: list[Tensor], *rest: Any, **options: Any) -> Tensor:
        seen.append([tuple(x.shape[-2:]) for x in levels])
        return original(levels, *rest, **options)

    original = roi_extractor.roi_align
    monkeypatch.setattr(roi_extractor, "roi_align", counted)
    pooled(extractor)(maps(), BOXES, IMAGES)
    assert seen == [[(24, 32)], [(12, 16)], [(6, 8)]]


def test_weights_of_levels() -> None:
    """The one level of a region; the mean weights of a weighted sum; where the maximum of several maps is."""
    levels = pooled("fpn_level").level_weights(maps(), BOXES, IMAGES)
    assert levels.tolist() == [[1, 0, 0]] * 4
    soft = pooled("soft")
    weights = soft.weigh(torch.cat(by_hand(), 1)).mean((2, 3))
    torch.testing.assert_close(soft.level_weights(maps(), BOXES, IMAGES), weights.float())
    branch = BoxBranch(
        RoISource(CHANNELS, STRIDES, RoIOptions(extractor="adaptive")), 2, BoxBranchOptions(hidden_dim=8)
    ).double()
    each = torch.stack(branch.head.first_layers(branch.pooling(maps(), BOXES, IMAGES)))
    fractions = branch.level_weights(maps(), BOXES, IMAGES)
    torch.testing.assert_close(fractions.sum(1), torch.ones(4))
    for level in range(3):
        is_largest = (each[level] == each.amax(0)).float().mean(1)
        torch.testing.assert_close(fractions[:, level], is_largest)
