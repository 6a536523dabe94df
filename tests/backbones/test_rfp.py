"""RFP: what it starts as, what feeds what, its parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from shaken_backbone import make_images, shake_backbone
from torch import nn

from boxwright.backbones.resnet import ResNet
from boxwright.backbones.rfp import RFP
from boxwright.layers.folding import fold_norms
from boxwright.layers.switchable_conv import SwitchableConv2d
from boxwright.necks.fpn import FPN
from boxwright.structures import Level

EVERY = ("c2", "c3", "c4", "c5")
SMALL: dict[str, Any] = {"depth": 18, "width": 4, "out_channels": 8}


def rfp(**options: Any) -> RFP:
    torch.manual_seed(0)
    return RFP(**SMALL | options)


def shaken(backbone: RFP) -> RFP:
    """Away from the zeros that feedback, fusion and switches start from."""
    # A switch is linear in its map: with larger weights the maps explode over the depth.
    shake_backbone(backbone, 0.1, little=("switch", "context"))
    return backbone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": EVERY, "extra_levels": 1},
        {"steps": 3, "extra_levels": 2, "extra": "conv_input"},
        {"shared": True, "steps": 3, "extra_levels": 2, "extra": "conv_output"},
        {"atrous": "switchable", "depth": 50},
    ],
)
def test_a_new_one_puts_out_what_resnet_and_fpn_do(options: dict[str, Any], training: bool) -> None:
    ours = rfp(**options).double().train(training)
    of_resnet = {key: value for key, value in (SMALL | options).items() if key in ("depth", "width", "levels")}
    resnet = ResNet(**of_resnet).double().train(training)
    resnet.load_state_dict({name: ours.bodies[0].state_dict()[name] for name in resnet.state_dict()})
    fpn = FPN(resnet.out_spec, out_channels=8, **{k: v for k, v in options.items() if k.startswith("extra")})
    fpn.pyramid, fpn.extra = ours.pyramid, ours.extra
    x = make_images(64, 96).double()
    expected = fpn(resnet(x))
    # The size of the weights is stored in float32.
    tolerance = 2e-5 if "atrous" in options else 0
    for name, level in ours(x).items():
        torch.testing.assert_close(level, expected[name], rtol=tolerance, atol=tolerance)
        assert (ours.fusion(level).sigmoid() == 0.5).all()
    assert ours.out_spec == fpn.out_spec


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        ours = RFP(levels=EVERY)
        assert count(ours.aspp) == 327_936
        assert count(ours.fusion) == 257
        assert count(ours.feedback) == 921_088
        assert [count(body) for body in ours.bodies] == [23_508_032] * 2
        assert count(ours) == 2 * 23_508_032 + 3_344_384 + 327_936 + 257 + 921_088
        assert count(RFP(levels=EVERY, steps=3)) == count(ours) + 23_508_032 + 921_088
        assert count(RFP(levels=EVERY, steps=3, shared=True)) == count(ours) - 23_508_032
        assert ours.out_spec == {f"c{i}": Level(256, 2**i) for i in range(2, 6)}


@pytest.mark.parametrize("depth", [18, 50])
def test_every_resnet_takes_the_weights_of_torchvision(depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    with torch.device("meta"):
        ours = RFP(depth=depth, levels=EVERY)  # type: ignore[arg-type]
    for body in ours.bodies:
        assert [(k, v.shape) for k, v in body.state_dict().items()] == [(k, v.shape) for k, v in state.items()]


@pytest.mark.parametrize("atrous", ["none", "switchable"])
def test_all_resnets_start_alike_and_are_trained_apart(atrous: str) -> None:
    ours = rfp(atrous=atrous, steps=3)
    states = [body.state_dict() for body in ours.bodies]
    assert len(states) == 3
    for state in states[1:]:
        assert all(torch.equal(tensor, states[0][name]) for name, tensor in state.items())
        assert not any(tensor.data_ptr() == states[0][name].data_ptr() for name, tensor in state.items())


@pytest.mark.parametrize("steps", [2, 3])
def test_shared_is_unshared_with_the_same_weights_in_all_steps(steps: int) -> None:
    shared = shaken(rfp(shared=True, steps=steps)).eval()
    unshared = rfp(steps=steps).eval()
    unshared.load_state_dict(shared.state_dict(), strict=False)
    for body in unshared.bodies:
        body.load_state_dict(shared.bodies[0].state_dict())
    for convs in unshared.feedback:
        convs.load_state_dict(shared.feedback[0].state_dict())
    expected = unshared(make_images(64, 96))
    for name, level in shared(make_images(64, 96)).items():
        torch.testing.assert_close(level, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"steps": 3}, {"atrous": "switchable"}])
def test_gradients_reach_everything_once_the_feedback_has_left_zero(options: dict[str, Any]) -> None:
    ours = shaken(rfp(levels=EVERY, extra_levels=1, **options)).train()
    sum((x * torch.randn_like(x)).sum() for x in ours(make_images(96, 128)).values()).backward()  # type: ignore[union-attr]
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        # A constant before a norm has no effect.
        if not name.endswith("post_context.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_the_feedback_comes_from_the_levels_that_it_goes_to_and_from_no_other() -> None:
    ours = shaken(rfp(levels=("c2", "c4"), extra_levels=1)).eval()
    pooled: list[torch.Size] = []
    ours.aspp.register_forward_hook(lambda _, args, __: pooled.append(args[0].shape[-2:]))
    ours(make_images(64, 96))
    assert pooled == [(4, 6)]
    assert list(ours.feedback[0]) == ["c4"]


def test_the_feedback_is_added_before_the_relu_of_the_first_block_alone() -> None:
    body = rfp().bodies[0].eval()
    plain, sums = body(make_images(64, 96)), []
    # The input of the second block is the output of the first.
    body.layer2[1].register_forward_pre_hook(lambda _, args: sums.append(args))
    added = torch.randn(2, 8, 8, 12)
    body(make_images(64, 96))
    lifted = body(make_images(64, 96), {"c3": added})
    (first, nothing), (with_feedback, still_nothing) = sums
    assert nothing is still_nothing is None
    # Where the ReLU cut nothing off, the sum is known.
    positive = first > 0
    torch.testing.assert_close(with_feedback[positive], (first + added)[positive].relu())
    assert (lifted["c5"] - plain["c5"]).abs().max() > 1e-3


def test_frozen_stages_are_those_of_every_resnet_and_the_feedback_is_trained() -> None:
    ours = rfp(frozen_stages=5)
    assert not any(p.requires_grad for body in ours.bodies for p in body.parameters())
    assert all(p.requires_grad for p in ours.feedback.parameters())


@pytest.mark.parametrize("atrous", ["none", "switchable"])
@pytest.mark.parametrize("size", [(32, 32), (33, 31), (100, 75)])
def test_maps_of_few_cells_are_trained_on(atrous: str, size: tuple[int, int]) -> None:
    ours = rfp(atrous=atrous, extra_levels=2).train()
    levels = ours(make_images(*size))
    for name, level in ours.out_spec.items():
        assert levels[name].shape == (2, 8, -(-size[0] // level.stride), -(-size[1] // level.stride))
    sum(x.sum() for x in levels.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("options", [{}, {"depth": 50, "atrous": "switchable"}, {"atrous": "switchable"}])
def test_folded_norms_change_no_output(options: dict[str, Any]) -> None:
    ours = shaken(rfp(**options)).double().eval()
    x = make_images(64, 96).double()
    expected = ours(x)
    fold_norms(ours)
    for name, level in ours(x).items():
        torch.testing.assert_close(level, expected[name], rtol=1e-8, atol=1e-8)
    switches = sum(isinstance(module, SwitchableConv2d) for module in ours.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in ours.modules()) == switches


@pytest.mark.parametrize("atrous", ["none", "switchable"])
def test_exported_with_a_free_batch(atrous: str) -> None:
    ours = shaken(rfp(atrous=atrous, extra_levels=1)).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(ours, (make_images(64, 96),), dynamic_shapes=(batch,)).module()
    for size in (1, 3):
        expected, actual = ours(make_images(64, 96, size)), program(make_images(64, 96, size))
        for name, level in expected.items():
            torch.testing.assert_close(actual[name], level, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps is at least 2, not 1; one step is the backbone resnet with the neck fpn"),
        (
            {"levels": ("c2",)},
            r"levels need one of \['c3', 'c4', 'c5'\], where the feedback goes to, not only \['c2'\]",
        ),
        ({"levels": ()}, "levels are some of"),
        ({"out_channels": 0}, "out_channels is at least 1, not 0"),
        ({"extra_levels": -1}, "extra_levels is at least 0, not -1"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rfp(**options)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"atrous is one of \['none', 'switchable'\], not 'deformable'"):
        rfp(atrous="deformable")
