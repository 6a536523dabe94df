"""No recipe's predictions depend on the images around an image."""

from __future__ import annotations

import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.data.images import normalize
from boxwright.structures import Category
from neighbors import assert_alone_as_among_others
from random_weights import calibrate, settle, shake
from small_recipes import every_recipe


@every_recipe
def test_an_image_alone_is_predicted_as_among_others(recipe: Recipe) -> None:
    torch.manual_seed(0)
    detector = build_resolved(recipe, categories=[Category(i, f"class {i}") for i in range(3)])
    shake(detector)
    coarse = torch.randint(256, (4, 3, 12, 12), dtype=torch.uint8)
    images = normalize(coarse.repeat_interleave(8, 2).repeat_interleave(8, 3), detector.input_format)
    calibrate(detector, images)
    settle(detector, images)
    # In float32, rounding grows in a recursive backbone to what is allowed here: 9e-5, and 1e-14 in float64.
    assert_alone_as_among_others(detector.double() if recipe.backbone.name == "rfp" else detector)
