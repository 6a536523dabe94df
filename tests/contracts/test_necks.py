"""Contracts of every neck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.compose.parts import find_part, list_parts
from boxwright.layers.padding import resize_mask
from boxwright.structures import Level, Spec
from part_checks import (
    SIZE,
    SPEC,
    attends,
    build,
    check_constructor,
    check_docstring,
    check_equal_seeds_give_equal_weights,
    check_gradients,
    check_levels,
    check_name,
    check_state_round_trip,
    maps,
    padding,
)
from random_weights import shake

ONE_STRIDE: Spec = {"block3": Level(12, 16), "block7": Level(20, 16)}

pytestmark = pytest.mark.parametrize("name", list_parts("necks"))


def test_name(name: str) -> None:
    check_name("necks", name)


def test_constructor(name: str) -> None:
    check_constructor(find_part("necks", name), ("in_spec",))


def test_docstring(name: str) -> None:
    check_docstring(find_part("necks", name), ("in_spec",))


@pytest.mark.parametrize(("height", "width"), [(64, 128), (224, 96), (100, 75), (65, 97), (33, 31)])
def test_levels_are_what_the_specification_says(name: str, height: int, width: int) -> None:
    neck = build("necks", name, SPEC).eval()
    check_levels(neck(maps(height, width), None), neck.out_spec, height, width)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (100, 75)])
def test_levels_of_one_stride_are_taken(name: str, height: int, width: int) -> None:
    """As a plain vision transformer gives them; a finer level has a whole multiple of their cells."""
    neck, features = build("necks", name, ONE_STRIDE).eval(), maps(height, width, spec=ONE_STRIDE)
    rows, columns = features["block3"].shape[-2:]
    check_levels(neck(features, None), neck.out_spec, 16 * rows, 16 * columns)


def test_incoming_specification_and_maps_are_left_alone(name: str) -> None:
    spec, features = dict(SPEC), maps()
    before = {key: x.clone() for key, x in features.items()}
    neck = build("necks", name, spec).eval()
    neck(features, None)
    neck.out_spec.clear()
    assert spec == SPEC
    assert list(features) == list(before)
    for key, x in features.items():
        torch.testing.assert_close(x, before[key], rtol=0, atol=0)


def test_levels_are_the_same_in_training_and_in_evaluation(name: str) -> None:
    neck = build("necks", name, SPEC)
    training, evaluation = neck.train()(maps()), neck.eval()(maps())
    assert type(training) is type(evaluation) is dict
    assert {k: x.shape for k, x in training.items()} == {k: x.shape for k, x in evaluation.items()}


def test_mask_without_padding_changes_nothing(name: str) -> None:
    neck = build("necks", name, SPEC).eval()
    without, nothing = neck(maps(), None), neck(maps(), torch.zeros(2, *SIZE, dtype=torch.bool))
    for key, level in without.items():
        torch.testing.assert_close(level, nothing[key], rtol=0, atol=1e-5)


def test_mask_changes_something_where_a_part_attends(name: str) -> None:
    neck = build("necks", name, SPEC).eval()
    shake(neck)
    without, masked = neck(maps(), None), neck(maps(), padding())
    differences = [
        (masked[key] - level).abs().amax(1)[~resize_mask(padding(), *level.shape[-2:])].max()
        for key, level in without.items()
    ]
    if attends(neck):
        assert max(differences) > 1e-3, "cells of the image look at padding"
    else:
        assert max(differences) == 0, "it does not attend, and yet reads the mask"


def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    # In float64: convolutions of other batch sizes round in other ways.
    neck = build("necks", name, SPEC).double().eval()
    features = {key: x.double() for key, x in maps().items()}
    together, alone = neck(features, padding()), neck({key: x[1:] for key, x in features.items()}, padding()[1:])
    for key, level in alone.items():
        torch.testing.assert_close(together[key][1:], level, rtol=0, atol=1e-5)
        assert (together[key][0] - together[key][1]).abs().max() > 1e-3


def test_gradients(name: str) -> None:
    neck = build("necks", name, SPEC).train()
    features = {key: x.requires_grad_() for key, x in maps().items()}
    check_gradients(neck, list(neck(features).values()))
    for key, x in features.items():
        assert x.grad is not None, key
        assert x.grad.abs().max() > 0


def test_state_round_trip(name: str) -> None:
    def outputs(neck: nn.Module) -> list[Tensor]:
        return list(neck(maps()).values())

    check_state_round_trip(build("necks", name, SPEC), build("necks", name, SPEC, seed=1), outputs)


def test_seeds(name: str) -> None:
    one, same, other = (build("necks", name, SPEC, seed=seed) for seed in (0, 0, 1))
    check_equal_seeds_give_equal_weights(one, same, other)
