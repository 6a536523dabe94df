"""The parameters that are trained, their rates and their decay."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import boxwright
from boxwright.compose.train_options import OptimizerOptions, TrainOptions
from boxwright.detector import Detector
from boxwright.training.optimizer import group_parameters, make_optimizer, set_lr
from boxwright.training.optimizer_state import load_optimizer_state

OPTIONS = TrainOptions(lr=0.01, backbone_lr=0.002, optimizer=OptimizerOptions(weight_decay=0.05))


def settings(detector: Detector, options: TrainOptions = OPTIONS) -> dict[str, tuple[float, float]]:
    """Learning rate and decay by the name of the parameter."""
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    actual: dict[str, tuple[float, float]] = {}
    for group in make_optimizer(detector, options).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in actual, f"{name} is in two groups"
            actual[name] = (group["lr"], group["weight_decay"])
    return actual


def undecayed(detector: Detector) -> set[str]:
    """Parameters of norms, and biases: found by their modules and names, not by their dimensions."""
    norms = {
        f"{path}.{name}"
        for path, module in detector.named_modules()
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    return norms | {name for name, _ in detector.named_parameters() if name.rpartition(".")[2].endswith("bias")}


def test_every_parameter_once_with_its_rate_and_decay(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    actual = settings(detector)
    assert actual.keys() == {name for name, _ in detector.named_parameters()}
    without = undecayed(detector)
    assert 0 < len(without) < len(actual)
    for name, (lr, decay) in actual.items():
        assert lr == (0.002 if name.startswith("backbone.") else 0.01), name
        assert decay == (0.0 if name in without else 0.05), name


def test_the_backbone_has_the_common_rate_where_it_has_none(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    assert {lr for lr, _ in settings(detector, TrainOptions(lr=0.03)).values()} == {0.03}


def test_what_is_frozen_is_left_out(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(
        tiny_recipe, num_classes=3, overrides={"backbone.frozen_stages": 2, "backbone.norm": "frozen"}
    )
    actual = settings(detector)
    assert actual.keys() == {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("backbone.stem.", "backbone.stages.c2.")) for name in actual)
    assert not any(name.startswith("backbone.") and ".norm." in name for name in actual)
    assert any(name.startswith("backbone.stages.c3.") for name in actual)


def test_nothing_to_train(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train: every parameter of this detector is frozen"):
        make_optimizer(detector, OPTIONS)


def test_rates_are_set_from_their_peaks(tiny_recipe: dict[str, Any]) -> None:
    optimizer = make_optimizer(boxwright.build(tiny_recipe, num_classes=3), OPTIONS)
    assert set_lr(optimizer, 0.5) == 0.005
    assert {group["lr"] for group in optimizer.param_groups} == {0.005, 0.001}
    # Of the peak, not of the rate before.
    assert set_lr(optimizer, 0.5) == 0.005
    assert set_lr(optimizer, 1.0) == 0.01


def test_without_gradients_only_what_decays_changes(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    before = {name: parameter.detach().clone() for name, parameter in detector.named_parameters()}
    optimizer = make_optimizer(detector, OPTIONS)
    for parameter in detector.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    without = undecayed(detector)
    for name, parameter in detector.named_parameters():
        lr = 0.002 if name.startswith("backbone.") else 0.01
        factor = 1.0 if name in without else 1 - lr * 0.05
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)


def test_factors_reach_the_parameters_that_they_name(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    plain = settings(detector)
    optimizer = OptimizerOptions(weight_decay=0.05, lr_factors={"sampling_offsets": 0.1, "necks": 0.5})
    chosen = TrainOptions(lr=0.01, backbone_lr=0.002, optimizer=optimizer)
    changed = 0
    for name, (lr, decay) in settings(detector, chosen).items():
        factor = (0.1 if ".sampling_offsets." in name else 1) * (0.5 if name.startswith("necks.") else 1)
        assert (lr, decay) == (pytest.approx(plain[name][0] * factor), plain[name][1])
        changed += factor != 1
    assert 0 < changed < len(plain)


def test_a_factor_that_names_nothing_is_an_error(tiny_recipe: dict[str, Any]) -> None:
    options = TrainOptions(optimizer=OptimizerOptions(lr_factors={"sampling_ofsets": 0.1}))
    with pytest.raises(ValueError, match="no trainable parameter has sampling_ofsets in its name"):
        make_optimizer(boxwright.build(tiny_recipe, num_classes=3), options)


def test_some_norms_decay_by_name(tiny_recipe: dict[str, Any]) -> None:
    """A name is one or several of those between dots; a part of one is none."""
    detector = boxwright.build(tiny_recipe, num_classes=3)
    names = ["encoder_output.1.weight", "necks.0.projections.c3.norm", "weigh"]
    options = TrainOptions(optimizer=OptimizerOptions(weight_decay=0.05, decayed_names=names))
    plain = settings(detector, TrainOptions(optimizer=OptimizerOptions(weight_decay=0.05)))
    changed = {name for name, actual in settings(detector, options).items() if actual != plain[name]}
    assert changed == {
        "head.encoder_output.1.weight",
        "necks.0.projections.c3.norm.weight",
        "necks.0.projections.c3.norm.bias",
    }


def test_decayed_names_that_are_nowhere_are_an_error(tiny_recipe: dict[str, Any]) -> None:
    options = TrainOptions(optimizer=OptimizerOptions(decayed_names=["norm7", "norm8"]))
    with pytest.raises(ValueError, match="no trainable parameter has norm7, norm8 in its name; give other names, or"):
        make_optimizer(boxwright.build(tiny_recipe, num_classes=3), options)


def test_norms_and_biases_decay_where_asked_for(tiny_recipe: dict[str, Any]) -> None:
    options = TrainOptions(optimizer=OptimizerOptions(weight_decay=0.05, norm_decay=True))
    assert {decay for _, decay in settings(boxwright.build(tiny_recipe, num_classes=3), options).values()} == {0.05}


def test_sgd_has_momentum_and_an_l2_penalty(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    options = TrainOptions(lr=0.01, optimizer=OptimizerOptions(name="sgd", momentum=0.8, weight_decay=0.05))
    before = {name: parameter.detach().clone() for name, parameter in detector.named_parameters()}
    optimizer = make_optimizer(detector, options)
    for _ in range(2):
        for parameter in detector.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    without = undecayed(detector)
    for name, parameter in detector.named_parameters():
        decay = 0.0 if name in without else 0.05
        first = 0.5 + decay * before[name]
        once = before[name] - 0.01 * first
        twice = once - 0.01 * (0.8 * first + 0.5 + decay * once)
        torch.testing.assert_close(parameter.detach(), twice, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_state_is_that_of_its_weights_in_any_memory_order(kind: type[torch.optim.Optimizer]) -> None:
    """Fused steps go through memory in order, and a state comes from a GPU, or from shards, in another one."""
    gradients = torch.randn(2, 8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    weights = [nn.Parameter(torch.ones(8, 4, 3, 3)) for _ in range(2)]
    weights[1].data = weights[1].data.contiguous(memory_format=torch.channels_last)
    optimizers = [kind([weight], lr=0.01, fused=True, **options) for weight in weights]

    def step(index: int) -> None:
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.empty_like(weight).copy_(gradients[index])
            optimizer.step()

    step(0)
    load_optimizer_state(optimizers[1], deepcopy(optimizers[0].state_dict()))
    step(1)
    torch.testing.assert_close(weights[1].detach(), weights[0].detach())


def test_parameter_groups_tell_norms_biases_and_the_backbone_apart(tiny_recipe: dict[str, Any]) -> None:
    detector = boxwright.build(tiny_recipe, num_classes=3)
    detector.backbone.stem.requires_grad_(False)
    groups = group_parameters(detector)
    assert sorted(groups) == ["backbone/decay", "backbone/no_decay", "other/decay", "other/no_decay"]
    names = [name for group in groups.values() for name, _ in group]
    assert sorted(names) == sorted(name for name, p in detector.named_parameters() if p.requires_grad)
    assert not any(name.startswith("backbone.stem") for name in names)
    norms = {name for name, m in detector.named_modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)}
    for key, group in groups.items():
        for name, _ in group:
            assert name.startswith("backbone.") == key.startswith("backbone/")
            of_norm = name.rpartition(".")[0] in norms
            assert (of_norm or name.endswith("bias")) == key.endswith("no_decay"), name
