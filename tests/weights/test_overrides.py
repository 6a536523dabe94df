"""Options that weights come with: changed ones are noted, whichever they are, and needed ones are listed."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.compose.recipes import resolve
from boxwright.weights.overrides import compare_parts, needed_options, note_changes, resolve_model, scale_longest_side

CHANGES = [
    ("faster_rcnn_r50_fpn", "head.rpn.anchor_grid", "padded_input"),
    ("retinanet_r50_fpn", "head.anchors.anchor_grid", "padded_input"),
    ("faster_rcnn_r50_fpn", "head.roi.aligned", True),
    ("faster_rcnn_r50_fpn", "head.roi.sampling_ratio", 0),
    ("faster_rcnn_r50_fpn", "backbone.norm_eps", 0.0),
    ("faster_rcnn_r50_fpn", "neck.extra_relu", False),
    ("rtdetrv2_r18", "head.decoder.sampling_method", "discrete"),
    ("rtdetr_r18", "head.decoder.eval_layers", 1),
    ("cascade_rcnn_r50_fpn", "backbone.stride_in", "1x1"),
]


@pytest.mark.parametrize(("recipe", "option", "value"), CHANGES, ids=str)
def test_another_option_of_a_part_is_noted_and_listed(recipe: str, option: str, value: Any) -> None:
    stated = resolve(recipe).recipe
    resolution = resolve_model(stated, {option: value})
    ((name, before, after),) = compare_parts(stated, resolution.recipe)
    assert (name, after) == (option, value)
    (note,) = resolution.notes
    assert f": --{option} " in note
    assert "\n" not in note
    # It is no default any more, and so among what the weights need; a default is if their source has set it.
    assert needed_options(resolution.recipe)[option] == value
    assert needed_options(stated, [option])[option] == before


def test_nothing_is_noted_of_what_is_the_same() -> None:
    stated = resolve("mask_rcnn_bot50_fpn").recipe
    assert note_changes(stated, stated) == []
    # The tables of positions follow the size of images, which may change.
    assert resolve_model(stated, {"image_size": 512}).notes == ()
    assert resolve_model(stated, {"train.lr": 0.1}).notes == ()


@pytest.mark.parametrize("key", ["image_size", "image-size", "input.image_size"])
def test_the_longest_side_follows_the_image_size(key: str) -> None:
    stated = resolve("detr_r50").recipe
    resolution = resolve_model(stated, {key: "400"})
    assert (resolution.recipe.input.image_size, resolution.recipe.input.max_size) == (400, 666)
    assert resolution.notes == ()
    assert resolve_model(stated, {"input": {"image_size": 400}}).recipe.input.max_size == 666
    assert resolve_model(stated, {key: 1600}).recipe.input.max_size == 2666
    assert resolve_model(stated, {key: 400, "input.max_size": 500}).recipe.input.max_size == 500
    assert scale_longest_side(resolve("rtdetr_r18").recipe.input, {key: 320}) == {key: 320}
    with pytest.raises(ValueError, match=r"input.image_size: .*huge"):
        resolve_model(stated, {key: "huge"})


def test_the_options_of_the_only_neck_have_one_name() -> None:
    recipe = resolve("detr_r50").recipe
    assert "neck.num_heads" in needed_options(recipe, ["neck.0.num_heads"])
