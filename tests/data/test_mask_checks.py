"""Checks of a data set's masks, before training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.data.masks import check_masks
from boxwright.data.open import open_data
from boxwright.ops.masks import encode_mask
from boxwright_runtime.masks import to_json

HEIGHT, WIDTH = 30, 40
COMPRESSED = to_json(encode_mask(torch.ones(HEIGHT, WIDTH, dtype=torch.bool).tril()))


def triangle(annotation: dict[str, Any]) -> list[list[float]]:
    """A polygon in an annotation's box."""
    x, y = annotation["bbox"][:2]
    return [[x, y, x + 8, y, x + 8, y + 4]]


class TestChecking:
    """A fault of a file is one line, and only where masks are needed."""

    @pytest.mark.parametrize(
        ("segmentation", "message"),
        [
            ([[1, 2, 3, 4]], "at least six numbers x, y, x, y ..., an even number; not 4 of them; correct it or"),
            ([[1, 2, 3, 4, 5, 6, 7]], "an even number; not 7 of them"),
            ([[]], "not 0 of them"),
            ([7, 8], "an even number; not 2 of them"),
            ([[1, 2, 3, 4, 5, float("nan")]], "a polygon has finite numbers, not nan"),
            ([[1, 2, 3, 4, 5, "6"]], "a polygon has finite numbers, not '6'"),
            ([[1, 2, 3, 4, 5, 1e9]], r"a point at y = 1e\+09, far outside of its image of 40 x 30 pixels"),
            ({"size": [30, 40]}, "run lengths have 'counts', a text or a list of numbers, not None"),
            (
                {**COMPRESSED, "size": [40, 30]},
                r"size \[40, 30\] do not fit the image's \[height, width\] \[30, 40\]",
            ),
            ({"counts": [0, 1200]}, "run lengths of size None do not fit"),
            (
                {"size": [30.0, 40.0], "counts": [0, 1200]},
                r"the size of run lengths is whole numbers, not \[30\.0, 40\.0\]; correct it or",
            ),
            ({**COMPRESSED, "size": [30, 40.0]}, r"whole numbers, not \[30, 40\.0\]"),
            ({"size": [30, 40], "counts": [0, 1000, 100]}, "add up to 1,100, not to the 1,200 pixels of the image"),
            ({"size": [30, 40], "counts": [0, -3, 1203]}, "whole numbers, none of them negative"),
            ({"size": [30, 40], "counts": [0, 1200.0]}, r"whole numbers, none of them negative; not 1200\.0"),
            ({"size": [30, 40], "counts": COMPRESSED["counts"][:-3]}, "add up to|end within a number"),
            ({"size": [30, 40], "counts": "é!"}, "its counts cannot be read: .* is no letter"),
            ({"size": [30, 40], "counts": [1200]}, "its segmentation has no pixel in the image; correct it or"),
            ({"size": [30, 40], "counts": [1200, 0]}, "no pixel"),
            (
                [[200, 200, 240, 200, 240, 230]],
                "its segmentation has no pixel in the image: its polygons lie outside of the 40 x 30 pixels; correct",
            ),
            ([[-9, -9, -1, -9, -1, -1]], "no pixel"),
            ([[5, -9, 9, -9, 9, -1]], "no pixel"),
            ([[40, 5, 44, 5, 44, 9]], "no pixel"),
            # Around the image, but none of them in it.
            ([[-9, 5, -1, 5, -1, 9], [45, 5, 50, 5, 50, 9]], "no pixel"),
            (
                [[20.5, 15, 30, 15, 30, 25]],
                r"its segmentation and its bbox do not meet: polygons from \(20\.5, 15\) to \(30, 25\), "
                r"\[left, top, width, height\] \[1, 2, 10, 5\]; correct it or",
            ),
            # As fractions of the image's sides; the box begins at 1, 2.
            ([[0.1, 0.1, 0.5, 0.1, 0.5, 0.4]], "do not meet"),
            (to_json(encode_mask(torch.zeros(HEIGHT, WIDTH, dtype=torch.bool))), "no pixel"),
        ],
    )
    def test_broken(self, tiny, segmentation: Any, message: str) -> None:
        for annotation in tiny.document["annotations"]:
            annotation["segmentation"] = triangle(annotation)
        tiny.document["annotations"][0]["segmentation"] = segmentation
        data = tiny.read()  # boxes alone work as before
        with pytest.raises(ValueError, match=message) as error:
            check_masks(data)
        assert str(error.value).startswith(f"{data.source}: annotation 1 of image 'a.png': ")
        assert "\n" not in str(error.value)

    def test_polygons_smaller_than_a_pixel_are_no_mistake(self, tiny) -> None:
        for annotation in tiny.document["annotations"]:
            x, y = annotation["bbox"][:2]
            annotation["segmentation"] = [[x, y, x + 4, y, x + 9, y]]
        check_masks(tiny.read(), crowds=True)

    def test_polygons_may_reach_beyond_the_image_and_lie_a_pixel_from_their_box(self, tiny) -> None:
        first, crowd, last = tiny.document["annotations"]
        first["segmentation"] = [[0, 0, 0.5, 0, 0.5, 1.2]]  # its box begins at 1, 2
        crowd["segmentation"] = [[-30, -20, 30, -20, 30, 200], [-9, 0, -1, 0, -1, 9]]
        last["segmentation"] = [[39.2, 20, 60, 20, 60, 29.5]]
        check_masks(tiny.read(), crowds=True)

    def test_missing(self, tiny) -> None:
        message = r"2 of 2 annotations have no segmentation, .*first is annotation 1 of image 'a\.png'\); complete the"
        with pytest.raises(ValueError, match=message):
            check_masks(tiny.read())

    def test_crowds_are_measured_with_but_not_trained_on(self, tiny) -> None:
        for annotation in tiny.document["annotations"]:
            annotation["segmentation"] = None if annotation.get("iscrowd") else triangle(annotation)
        check_masks(tiny.read())
        with pytest.raises(ValueError, match=r"1 of 3 annotations .*annotation 2 of image 'b\.png'"):
            check_masks(tiny.read(), crowds=True)

    @pytest.mark.parametrize(("name", "split"), [("nuclei", "val_rle"), ("coco_mini", "train"), ("coco_mini", "val")])
    def test_real_files_are_whole(self, real_data: Callable[[str], Path], name: str, split: str) -> None:
        check_masks(open_data(real_data(name), split, check_images=False), crowds=True)
