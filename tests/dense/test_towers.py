"""Levels of one width, towers of convolutions, predictions in rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.dense.towers import ConvTower, TowerNorm
from boxwright.layers.predictions import InputProjection, flatten_predictions, prediction_conv
from boxwright.structures import Level, Spec

SPEC: Spec = {"c3": Level(12, 8), "c4": Level(16, 16), "raw": Level(9, 16, auxiliary=True), "c5": Level(16, 32)}


def maps(spec: Spec = SPEC) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(2, level.channels, 64 // level.stride, 3) for name, level in spec.items()}


def test_levels_of_another_width_are_projected_and_auxiliary_ones_left_out() -> None:
    project, features = InputProjection(SPEC, 16), maps()
    assert project.levels == ["c3", "c4", "c5"]
    assert list(project) == ["c3"]
    c3, c4, c5 = project(features)
    assert c3.shape == (2, 16, 8, 3)
    torch.testing.assert_close(c3[0, :, 1, 2], project["c3"].weight[:, :, 0, 0] @ features["c3"][0, :, 1, 2])
    assert c4 is features["c4"]
    assert c5 is features["c5"]


def test_the_width_is_that_of_the_levels_where_they_share_one() -> None:
    equal: Spec = {"c4": Level(16, 16), "raw": Level(9, 16, auxiliary=True), "c5": Level(16, 32)}
    assert InputProjection(equal, None).channels == 16
    assert len(InputProjection(equal, None)) == 0
    assert InputProjection(equal, 8).channels == 8
    assert list(InputProjection(equal, 8)) == ["c4", "c5"]
    assert InputProjection(SPEC, None).channels == 256
    with pytest.raises(ValueError, match="channels is at least 1, not 0"):
        InputProjection(SPEC, 0)


@pytest.mark.parametrize(
    ("norm", "kinds"), [("none", [nn.Conv2d, nn.ReLU]), ("group", [nn.Conv2d, nn.GroupNorm, nn.ReLU])]
)
def test_towers(norm: TowerNorm, kinds: list[type[nn.Module]]) -> None:
    torch.manual_seed(0)
    tower = ConvTower(128, 3, norm=norm)
    assert [type(layer) for layer in tower] == kinds * 3
    for layer in tower:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
            assert (layer.bias is None) == (norm == "group")
            assert layer.bias is None or (layer.bias == 0).all()
        elif isinstance(layer, nn.GroupNorm):
            assert layer.num_groups == 32
    # Training in Winograd's form and prediction.
    levels = [torch.randn(2, 128, 24, 22), torch.randn(2, 128, 3, 5)]
    with torch.no_grad():
        expected = [tower(x) for x in levels]
    for ours, alone in zip(tower.over_levels(levels), expected, strict=True):
        torch.testing.assert_close(ours, alone, rtol=0, atol=1e-4)
    assert ConvTower(4, 0).over_levels(levels) == levels


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (16, 8), (12, 2), (7, 1), (1, 1)])
def test_groups_have_two_channels_or_more(channels: int, groups: int) -> None:
    norm = ConvTower(channels, 1, norm="group")[1]
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_bad_towers() -> None:
    with pytest.raises(ValueError, match="num_convs is at least 0, not -1"):
        ConvTower(8, -1)


def test_small_convolutions_start_at_their_value() -> None:
    conv = prediction_conv(3, 5, value=-2.0)
    assert (conv(torch.zeros(1, 3, 2, 4)) == -2).all()
    assert prediction_conv(3, 5, bias=False).bias is None


def test_rows_go_cell_by_cell() -> None:
    # Value 100 * row + 10 * column + channel; channels are two anchors of three numbers.
    x = (100 * torch.arange(2)[:, None] + 10 * torch.arange(4)).float() + torch.arange(6)[:, None, None]
    (rows,) = flatten_predictions([x[None]], 3)
    assert rows.shape == (1, 16, 3)
    assert rows[0, :3].tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12]]
    assert rows[0, -1].tolist() == [133, 134, 135]
