"""Contracts of every backbone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.compose.parts import find_part, list_parts
from part_checks import (
    build,
    check_constructor,
    check_docstring,
    check_equal_seeds_give_equal_weights,
    check_gradients,
    check_levels,
    check_name,
    check_state_round_trip,
)

pytestmark = pytest.mark.parametrize("name", list_parts("backbones"))


def make_images(height: int = 75, width: int = 101) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_name(name: str) -> None:
    check_name("backbones", name)


def test_constructor(name: str) -> None:
    check_constructor(find_part("backbones", name), ())


def test_docstring(name: str) -> None:
    check_docstring(find_part("backbones", name), ())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (224, 96), (100, 75), (65, 97), (33, 31)])
def test_levels_are_what_the_specification_says(name: str, height: int, width: int) -> None:
    backbone = build("backbones", name).eval()
    check_levels(backbone(make_images(height, width)), backbone.out_spec, height, width)


def test_levels_are_the_same_in_training_and_in_evaluation(name: str) -> None:
    backbone = build("backbones", name)
    training, evaluation = backbone.train()(make_images()), backbone.eval()(make_images())
    assert type(training) is type(evaluation) is dict
    assert {k: x.shape for k, x in training.items()} == {k: x.shape for k, x in evaluation.items()}


def test_levels_depend_on_the_image(name: str) -> None:
    backbone = build("backbones", name).eval()
    for level in backbone(make_images()).values():
        assert (level[0] - level[1]).abs().max() > 1e-6
        assert level[0].std() > 1e-6


def test_gradients(name: str) -> None:
    backbone = build("backbones", name).train()
    check_gradients(backbone, list(backbone(make_images()).values()))


def test_state_round_trip(name: str) -> None:
    def outputs(backbone: nn.Module) -> list[Tensor]:
        return list(backbone(make_images()).values())

    check_state_round_trip(build("backbones", name), build("backbones", name, seed=1), outputs)


def test_seeds(name: str) -> None:
    one, same, other = (build("backbones", name, seed=seed) for seed in (0, 0, 1))
    check_equal_seeds_give_equal_weights(one, same, other)
