"""The change of contrast in the order in which it is drawn, with fixed factors against torchvision's functions.

Statistics over many draws are too wide to see about which mean the contrast changes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from boxwright.data.transforms.photometric import change_colors, draw_color_map

FACTORS = (1.125, 1.5, 0.5, 0.03)
"""Brightness, contrast, saturation, hue."""


class Fixed(np.random.Generator):
    """A source of chance whose factors are given, and whose coin says where the contrast comes."""

    def __init__(self, coin: float, on: tuple[bool, ...] = (True,) * 4) -> None:
        super().__init__(np.random.PCG64(0))
        self.factors, self.coins = iter(FACTORS), iter([*(0.0 if one else 1.0 for one in on), coin, 1.0])

    def uniform(self, low: float, high: float) -> float:
        value = next(self.factors)
        assert low <= value <= high
        return value

    def random(self) -> float:
        return next(self.coins)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Smooth colors far enough from black and white that no change clips."""
    coarse = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))[None]
    smooth = torch.nn.functional.interpolate(coarse, (60, 80), mode="bilinear")[0]
    return 0.3 + 0.2 * smooth * torch.tensor([1.5, 1.0, 0.4])[:, None, None]


def ours(image: torch.Tensor, rng: Fixed) -> torch.Tensor:
    mean = 255 * image.double().mean((1, 2)).numpy()
    return change_colors(255 * image, draw_color_map(rng, 0.5, 0.5, mean)) / 255


def test_contrast_changes_about_the_mean_after_the_brightness(image: torch.Tensor) -> None:
    """It is 12.5 % brighter by then, so that about the mean before, the image would become darker."""
    changed = ours(image, Fixed(0.0, (True, True, False, False)))
    expected = F.adjust_contrast(F.adjust_brightness(image, FACTORS[0]), FACTORS[1])
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-4)
    wrong = F.adjust_brightness(image, FACTORS[0])
    gray = F.rgb_to_grayscale(image).mean()
    assert ((FACTORS[1] * (wrong - gray) + gray) - expected).abs().mean() > 0.02


@pytest.mark.parametrize(("coin", "is_first"), [(0.0, True), (0.9, False)])
def test_contrast_comes_after_the_brightness_or_last(image: torch.Tensor, coin: float, is_first: bool) -> None:
    """Before saturation or after it; about the mean at that point in either case."""
    changed = ours(image, Fixed(coin, (True, True, True, False)))
    bright, spread, chroma, _ = FACTORS
    expected = F.adjust_brightness(image, bright)
    if is_first:
        expected = F.adjust_saturation(F.adjust_contrast(expected, spread), chroma)
    else:
        expected = F.adjust_contrast(F.adjust_saturation(expected, chroma), spread)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-3)


def test_contrast_last_is_about_the_mean_after_the_turn_of_hues(image: torch.Tensor) -> None:
    """The gray value of what is left then has the same mean before and after: contrast keeps it."""
    with_all = ours(image, Fixed(0.9))
    without_contrast = ours(image, Fixed(0.9, (True, False, True, True)))
    gray, before = (F.rgb_to_grayscale(one).mean() for one in (with_all, without_contrast))
    torch.testing.assert_close(gray, before, rtol=0, atol=1e-4)
    spread, old = (F.rgb_to_grayscale(one).std() for one in (with_all, without_contrast))
    assert float(spread / old) == pytest.approx(FACTORS[1], rel=1e-3)
    assert not np.allclose(with_all, without_contrast)
