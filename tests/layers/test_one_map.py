"""Levels from maps of one stride."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boxwright.layers.ceil_pooling import max_pool_ceil
from boxwright.layers.channel_norm import ChannelNorm
from boxwright.layers.one_map import OneMapLevels, map_upsampler
from boxwright.structures import Features, Level, Spec

PLAIN: Spec = {"block3": Level(4, 16), "block7": Level(6, 16)}
STAGES: Spec = {"c3": Level(4, 8), "c4": Level(5, 16), "c5": Level(6, 32)}


def test_levels_are_called_by_their_strides() -> None:
    assert OneMapLevels(PLAIN, (4.0, 2.0, 1.0, 0.5)).strides == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    assert OneMapLevels(STAGES, (2.0, 0.5)).strides == {"c4": 16, "c6": 64}
    assert OneMapLevels({"c4": Level(4, 14)}, (2.0, 1.0)).strides == {"c3": 7, "c4": 14}


def sizes(levels: OneMapLevels, features: Features) -> dict[str, tuple[int, ...]]:
    """(rows, columns) of the levels that the map gives, repeated and cut."""
    x, made = levels.gather(features)[0], {}
    for name, scale in levels.scales.items():
        resampled = (
            max_pool_ceil(x, 2) if scale < 1 else x.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3)
        )
        made[name] = tuple(levels.cut(resampled, name, features).shape[-2:])
    return made


@pytest.mark.parametrize("size", [(96, 64), (100, 75), (65, 33)])
def test_finer_levels_tell_the_size_of_the_image(size: tuple[int, int]) -> None:
    levels = OneMapLevels(STAGES, (4.0, 2.0, 1.0, 0.5))
    features = {n: torch.zeros(1, 1, *(-(-s // at.stride) for s in size)) for n, at in STAGES.items()}
    assert sizes(levels, features) == {f"c{i}": (-(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(3, 7)}


def test_coarse_maps_alone_tell_it_up_to_a_cell() -> None:
    levels = OneMapLevels(PLAIN, (2.0, 1.0, 0.5))
    features = {n: torch.zeros(1, 1, 7, 5) for n in PLAIN}
    assert sizes(levels, features) == {"c3": (14, 10), "c4": (7, 5), "c5": (4, 3)}


def test_finer_levels_are_averaged() -> None:
    fine = torch.arange(15.0).view(1, 1, 3, 5)
    features = {"c4": fine, "c5": torch.zeros(1, 1, 2, 3)}
    first, second = OneMapLevels({"c4": Level(1, 16), "c5": Level(1, 32)}, (1.0,)).gather(features)
    # Windows of four cells, two at the borders, one in the corner.
    assert first.tolist() == [[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]
    assert second is features["c5"]


def test_the_last_rows_and_columns_are_cut_off() -> None:
    levels = OneMapLevels({"c4": Level(1, 16), "c5": Level(1, 32)}, (2.0,))
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert levels.cut(x, "c4", {"c4": torch.zeros(1, 1, 3, 5)}).tolist() == x[..., :3, :5].tolist()


@pytest.mark.parametrize(("scale", "width"), [(1.0, 12), (2.0, 6), (4.0, 3)])
def test_each_doubling_halves_the_channels(scale: Any, width: int) -> None:
    upsampler, channels = map_upsampler(12, scale)
    assert channels == width
    assert upsampler(torch.zeros(1, 12, 3, 5)).shape == (1, width, 3 * scale, 5 * scale)


def test_channel_norm_takes_the_channels_of_a_cell() -> None:
    norm = ChannelNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0]))
    # Means 2 and 6, standard deviations 1 and 2.
    x = torch.tensor([[[[1.0, 8.0]], [[3.0, 4.0]]]])
    torch.testing.assert_close(norm(x), torch.tensor([[[[-1.5, 2.5]], [[3.0, -3.0]]]]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "scales", "message"),
    [
        (PLAIN, (3.0,), r"each of scales is one of \(?\[4.0, 2.0, 1.0, 0.5\]\)?, not 3.0"),
        (PLAIN, (1.0, 2.0), r"scales are one or more, each once and the largest first, not \[1.0, 2.0\]"),
        (PLAIN, (), "scales are one or more"),
        ({}, (1.0,), "a pyramid needs at least one level to be made from"),
        ({"c4": Level(4, 14)}, (4.0,), "a level of stride 14 cannot have 4 times the cells: c4"),
        ({"c3": Level(4, 8), "c4": Level(4, 14)}, (1.0,), "stride 14 of c4 is not 8 of c3 times a power of two"),
    ],
)
def test_what_does_not_fit_is_refused(spec: Spec, scales: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneMapLevels(spec, scales)
