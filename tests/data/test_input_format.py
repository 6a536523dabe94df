"""Format of network inputs: sizes, normalization, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.images import normalize
from boxwright_runtime.input_format import InputFormat, ResizeRule


class TestInputFormat:
    @pytest.mark.parametrize("size", [0, -32, 100, 650])
    def test_refuses_a_size_that_is_no_multiple_of_32(self, size: int) -> None:
        with pytest.raises(ValueError, match=f"multiple of 32, not {size}; nearest is (32|96|640)"):
            InputFormat(image_size=size)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_size": 1333}, "max_size 1333 needs resize shortest_side"),
            ({"resize": "shortest_side", "image_size": 0}, "image_size must be at least 1, not 0"),
            ({"resize": "shortest_side", "max_size": 600}, r"max_size must be at least image_size \(640\), not 600"),
        ],
    )
    def test_refuses_sizes_that_contradict_each_other(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            InputFormat(**options)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("size", ["96", 96.0])
    def test_no_other_size_than_whole_pixels(self, size: Any) -> None:
        with pytest.raises(ValueError, match=f"^image_size must be a whole number, not {size!r}$"):
            InputFormat(image_size=size)
        with pytest.raises(ValueError, match=f"^image_size must be a whole number, not {size!r}$"):
            InputFormat(resize="shortest_side", max_size=900).at_size(size)

    def test_the_longest_side_changes_with_the_image_size(self) -> None:
        assert InputFormat(image_size=800, resize="shortest_side", max_size=1333).resize_rule(400) == ResizeRule(
            400, "shortest_side", 666
        )
        assert InputFormat(image_size=100, resize="shortest_side").resize_rule(50) == ResizeRule(50, "shortest_side")
        assert InputFormat(image_size=64).resize_rule(96) == ResizeRule(96)

    def test_refuses_a_std_of_zero(self) -> None:
        with pytest.raises(ValueError, match="std positive"):
            InputFormat(std=(1.0, 0.0, 1.0))

    def test_normalize(self) -> None:
        images = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].repeat(2, 1, 4, 4)
        assert torch.equal(normalize(images, InputFormat())[1, :, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
        other = InputFormat(mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))
        torch.testing.assert_close(normalize(images, other)[1, :, 0, 0], torch.tensor([-1.0, 0.0, 0.5]))
        assert normalize(images[0], other).shape == (3, 4, 4)


class TestInputSizes:
    # Image, shortest side and longest; what get_size_with_aspect_ratio of facebookresearch/detr 29901c5 makes of it.
    DETR = (
        ((480, 640), (800, 1333), (800, 1066)),
        ((427, 640), (800, 1333), (800, 1199)),
        ((640, 427), (800, 1333), (1199, 800)),
        ((500, 333), (800, 1333), (1201, 800)),
        ((375, 500), (480, 1333), (480, 640)),
        ((300, 1200), (800, 1333), (333, 1332)),
        ((1200, 299), (800, 1333), (1332, 332)),
        ((800, 1201), (800, 1333), (800, 1201)),
        ((612, 612), (800, 1333), (800, 800)),
        ((1, 1), (800, 1333), (800, 800)),
        ((2000, 3001), (800, None), (800, 1200)),
        ((31, 400), (64, 96), (7, 90)),
        ((33, 200), (64, 96), (16, 96)),
    )

    @pytest.mark.parametrize(("image", "limits", "expected"), DETR)
    def test_input_sizes_are_detrs(
        self, image: tuple[int, int], limits: tuple[int, int | None], expected: tuple[int, int]
    ) -> None:
        shortest, longest = limits
        assert ResizeRule(shortest, "shortest_side", longest).input_size(*image) == expected
        input_format = InputFormat(image_size=shortest, resize="shortest_side", max_size=longest)
        assert input_format.input_size(*image) == expected
        assert input_format.input_size(*image[::-1]) == expected[::-1]

    def test_a_square_is_a_square(self) -> None:
        assert {InputFormat(image_size=96).input_size(*image) for image, _, _ in self.DETR} == {(96, 96)}

    @settings(max_examples=200, deadline=None)
    @given(height=st.integers(1, 4000), width=st.integers(1, 4000))
    def test_the_aspect_ratio_is_kept_within_a_pixel(self, height: int, width: int) -> None:
        input_height, input_width = ResizeRule(800, "shortest_side", 1333).input_size(height, width)
        short, long = sorted((input_height, input_width))
        ratio = Fraction(max(height, width), min(height, width))
        assert 1 <= short <= 800
        assert (input_height <= input_width) == (height <= width) or short == long
        # Half a pixel of the shortest side is half the ratio of the longest.
        assert long <= 1333 + ratio / 2
        assert short == 800 or long >= 1333 - ratio / 2 - 1
        if short > 1:
            assert short * ratio - 1 <= long <= short * ratio

    def test_a_line_keeps_a_pixel(self) -> None:
        assert ResizeRule(800, "shortest_side", 1333).input_size(1, 4000) == (1, 1333)
        assert ResizeRule(800, "shortest_side", 1333).input_size(4000, 1) == (1333, 1)
