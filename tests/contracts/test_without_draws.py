"""Detectors built without drawing their weights are those that are built with them, once loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from boxwright.compose.detectors import build_resolved, load_weights
from boxwright.compose.recipe import Recipe
from boxwright.compose.undrawn import WithoutDraws, lacks_weights
from boxwright.passport import Origin, Passport
from boxwright.structures import Category
from boxwright.weights.model import ModelWeights, build_model, load
from small_recipes import DISTINCT, every_part

CATEGORIES = [Category(3, "three"), Category(7, "seven")]


def plain_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that are attributes of modules and neither parameters nor buffers."""
    return {
        f"{path}.{name}": value
        for path, one in module.named_modules()
        for name, value in vars(one).items()
        if isinstance(value, torch.Tensor)
    }


@every_part
def test_every_tensor_is_the_same(recipe: Recipe) -> None:
    torch.manual_seed(1)
    drawn = build_resolved(recipe, categories=CATEGORIES)
    weights = drawn.state_dict()
    state = torch.get_rng_state()
    with WithoutDraws():
        detector = build_resolved(recipe, categories=CATEGORIES)
    assert torch.equal(torch.get_rng_state(), state), "something was drawn"
    assert not lacks_weights(detector, weights)
    load_weights(detector, weights)
    for ours, theirs in (
        (dict(detector.named_parameters()), dict(drawn.named_parameters())),
        (dict(detector.named_buffers()), dict(drawn.named_buffers())),
        (plain_tensors(detector), plain_tensors(drawn)),
    ):
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), key
            assert (ours[key].dtype, ours[key].requires_grad) == (tensor.dtype, tensor.requires_grad), key
    # What is no tensor, as sizes and options, shows in what a module says of itself.
    assert repr(detector) == repr(drawn)


@every_part
def test_outputs_of_a_loaded_detector_are_those_of_the_saved_one(recipe: Recipe, tmp_path: Path) -> None:
    """Bit by bit, and all of its tensors have storage."""
    torch.manual_seed(1)
    saved = build_resolved(recipe, categories=CATEGORIES).eval()
    saved.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    tensors = [*loaded.parameters(), *loaded.buffers(), *plain_tensors(loaded).values()]
    assert not any(tensor.is_meta for tensor in tensors)
    # Attention of BoTNet is of one size of map.
    size = recipe.input.image_size if "bot" in recipe.backbone.name else 128
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = (tree_leaves(detector(images)) for detector in (loaded, saved))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_weights_that_no_file_has_are_drawn() -> None:
    recipe = next(recipe for name, recipe in DISTINCT.items() if recipe.head.name == "rtdetr")
    weights = build_resolved(recipe, categories=CATEGORIES).state_dict()
    missing = next(name for name in weights if "denoising" in name)
    tensors = {name: tensor for name, tensor in weights.items() if name != missing}
    model = ModelWeights(
        recipe=recipe,
        categories=CATEGORIES,
        tensors=tensors,
        origin=Origin(source="x", kind="hf_rtdetr"),
        passport=Passport(version="1"),
    )
    torch.manual_seed(5)
    first = build_model(model).state_dict()[missing]
    torch.manual_seed(5)
    assert torch.equal(build_model(model).state_dict()[missing], first)
    assert 0 < first.std() < 10
    with pytest.raises(ValueError, match=f"x: weights do not fit .*{missing} is missing"):
        build_model(replace(model, origin=Origin(source="x", kind="boxwright")))


def test_fresh_detectors_are_drawn_as_ever() -> None:
    with WithoutDraws():
        undrawn = nn.Linear(4, 4)
        nn.init.constant_(undrawn.bias, 3)
        nn.init.xavier_uniform_(undrawn.weight)
        nn.init.trunc_normal_(tensor=undrawn.weight)
        filled = torch.zeros(5).normal_()
    assert undrawn.bias.tolist() == [3.0] * 4
    assert filled.tolist() == [0.0] * 5
    assert torch.zeros(5).normal_().abs().sum() > 0
