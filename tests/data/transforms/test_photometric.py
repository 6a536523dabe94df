"""Changes of color against torchvision's, one by one and in their statistics."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from boxwright.data.transforms import photometric
from boxwright.data.transforms.photometric import change_colors, draw_color_map


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Smooth colors far enough from black and white that no change clips."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (60, 80), mode="bilinear")[0]
    return (90 + 60 * smooth).to(torch.uint8)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("factor", [0.5, 0.875, 1.0, 1.125, 1.5])
def test_brightness_saturation_and_contrast_are_torchvisions(image: torch.Tensor, factor: float) -> None:
    """Within two levels: torchvision cuts values off where ours are rounded."""
    gray = float(F.rgb_to_grayscale(image.double()).mean())
    for ours, theirs in (
        (photometric.brightness(factor), F.adjust_brightness),
        (photometric.saturation(factor), F.adjust_saturation),
        (photometric.contrast(factor, gray), F.adjust_contrast),
    ):
        assert largest_difference(change_colors(image, ours), theirs(image, factor)) <= 2


@pytest.mark.parametrize("turns", [-0.05, -0.02, 0.03, 0.05])
def test_hue_turns_as_in_hsv(turns: float) -> None:
    """Within 2.3 degrees of HSV's angle; the mean of the channels stays."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(500):
        color = rng.uniform(60, 190, 3)
        turned = (photometric.hue(turns) @ np.append(color, 1.0))[:3]
        assert turned.mean() == pytest.approx(color.mean(), abs=1e-9)
        before, after = (colorsys.rgb_to_hsv(*(c / 255))[0] for c in (color, turned))
        errors.append((after - before - turns + 0.5) % 1 - 0.5)
    degrees = 360 * np.abs(errors)
    assert degrees.max() < 2.3
    assert degrees.mean() < 1.3


def test_hue_is_the_linear_map_nearest_to_hsv() -> None:
    """Over random colors, within 1 % of what least squares finds, which is 40 % off doing nothing."""
    colors = 50 + 155 * torch.rand(3, 1, 20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = colors.flatten(1).numpy()
    for turns in (-0.05, 0.05):
        hsv = 255 * F.adjust_hue(colors / 255, turns).flatten(1).numpy()
        fitted = np.linalg.lstsq(given.T, hsv.T, rcond=None)[0].T
        nothing, ours, best = (
            np.sqrt(((linear @ given - hsv) ** 2).mean())
            for linear in (np.eye(3), photometric.hue(turns)[:3, :3], fitted)
        )
        assert best <= ours < 1.01 * best
        assert ours < 0.6 * nothing


def test_grays_stay_gray_under_saturation_and_hue() -> None:
    gray = np.array([77.0, 77.0, 77.0, 1.0])
    for color_map in (photometric.saturation(0.5), photometric.saturation(1.5), photometric.hue(0.05)):
        assert np.allclose(color_map @ gray, gray, atol=0.02)


def test_values_are_rounded_and_clipped() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 256).repeat(3, 1, 1)
    assert torch.equal(change_colors(levels, np.eye(4)), levels)
    scaled = change_colors(levels, photometric.brightness(1.5))
    expected = (levels.double() * 1.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)
    assert torch.equal(scaled, expected)
    darker = photometric.contrast(1.5, 128.0)
    assert change_colors(levels, darker)[0, 0, [0, 128, 255]].tolist() == [0, 128, 255]


def test_probabilities_of_zero_and_one() -> None:
    mean = np.array([120.0, 100.0, 90.0])
    for seed in range(50):
        assert np.array_equal(draw_color_map(np.random.default_rng(seed), 0.0, 0.0, mean), np.eye(4))
        assert not np.allclose(draw_color_map(np.random.default_rng(seed), 1.0, 0.0, mean), np.eye(4))
        shuffled = draw_color_map(np.random.default_rng(seed), 0.0, 1.0, mean)
        assert sorted(map(tuple, shuffled)) == sorted(map(tuple, np.eye(4)))


def test_statistics_are_torchvisions(image: torch.Tensor) -> None:
    """Mean and spread of the channels, the contrast and the colorfulness, over 1,000 draws each."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    mean = image.double().mean((1, 2)).numpy()
    theirs_transform = v2.RandomPhotometricDistort(p=0.5)

    def describe(image: torch.Tensor) -> list[float]:
        values = image.double()
        return [*values.mean((1, 2)).tolist(), values.std().item(), values.std(0).mean().item()]

    ours = np.array([describe(change_colors(image, draw_color_map(rng, 0.5, 0.5, mean))) for _ in range(1000)])
    theirs = np.array([describe(theirs_transform(image)) for _ in range(1000)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 1000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error + 0.5).all()
    assert ours.std(0) == pytest.approx(theirs.std(0), rel=0.1)
