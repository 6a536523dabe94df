"""Timm: equal to timm's own models, and what is named, padded, left out, frozen and refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from small_timm import build, make_images, randomize
from torch import Tensor, nn

from boxwright.backbones import timm as timm_backbone
from boxwright.backbones.timm import Timm
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.structures import Level
from conformance import compare_gradients, compare_tensors, note_inputs

EVERY = ("c1", "c2", "c3", "c4", "c5")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("number", "total", "channels"),
    [
        (0, 3_595_388, (40, 112, 320)),
        (1, 6_101_024, (40, 112, 320)),
        (2, 7_202_562, (48, 120, 352)),
        (3, 10_103_336, (48, 136, 384)),
        (4, 16_742_216, (56, 160, 448)),
        (5, 27_288_112, (64, 176, 512)),
        (6, 39_403_992, (72, 200, 576)),
    ],
)
def test_the_efficientnets_of_efficientdet(number: int, total: int, channels: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        backbone = Timm(model=f"tf_efficientnet_b{number}")
    assert count(backbone) == total
    strides = {"c3": 8, "c4": 16, "c5": 32}
    assert backbone.out_spec == {n: Level(c, s) for (n, s), c in zip(strides.items(), channels, strict=True)}
    assert {norm.eps for norm in backbone.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}


def test_levels_of_the_default_are_blocks_of_the_classifier() -> None:
    peer = randomize(timm.create_model("tf_efficientnet_b0")).eval()
    expected: dict[str, Tensor] = {}
    for name, block in (("c3", 2), ("c4", 4), ("c5", 6)):
        peer.blocks[block].register_forward_hook(lambda _, __, out, name=name: expected.setdefault(name, out))
    ours = Timm().double().eval()
    missing, extra = ours.body.load_state_dict(peer.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in extra} == {"conv_head", "bn2", "classifier"}
    with torch.no_grad():
        peer(make_images(100, 75))
        actual = ours(make_images(100, 75))
    assert list(actual) == list(expected)
    for name, level in actual.items():
        torch.testing.assert_close(level, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.conforms("timm's models", "timm")
@pytest.mark.parametrize(
    "model", ["test_efficientnet", "test_resnet", "test_byobnet", "test_convnext", "test_mambaout"]
)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_timm(model: str, training: bool) -> None:
    peer = randomize(timm.create_model(model, features_only=True)).train(training)
    levels = EVERY if len(peer.feature_info) == 5 else EVERY[1:]
    ours = build(model, levels=levels).double().train(training)
    assert [(x.channels, x.stride) for x in ours.out_spec.values()] == list(
        zip(peer.feature_info.channels(), peer.feature_info.reduction(), strict=True)
    )
    ours.body.load_state_dict(peer.state_dict())
    actual, expected = list(ours(make_images()).values()), peer(make_images())
    if ours.channels_last:
        expected = [x.permute(0, 3, 1, 2) for x in expected]
    note_inputs(make_images())
    for one, two in zip(actual, expected, strict=True):
        compare_tensors("outputs", one, two, limit=1e-12, relative=1e-10)
    for maps in (actual, expected):
        sum(x.square().mean() for x in maps).backward()
    pairs = zip(ours.body.named_parameters(), peer.parameters(), strict=True)
    gradients = [(name, one.grad, two.grad) for (name, one), two in pairs]
    both = {n: one for n, one, _ in gradients}, {n: two for n, _, two in gradients}
    compare_gradients(*both, limit=1e-8, floor=1e-4, elements=(1e-8, 1e-12))


@pytest.mark.conforms("HGNetv2", "timm")
@pytest.mark.parametrize(
    "model", ["hgnetv2_b0", *(pytest.param(f"hgnetv2_b{i}", marks=pytest.mark.slow) for i in (4, 5, 6))]
)
@pytest.mark.parametrize("training", [True, False])
def test_hgnetv2_is_that_of_timm_at_odd_sizes(model: str, training: bool) -> None:
    peer = randomize(timm.create_model(model, features_only=True, out_indices=(1, 2, 3))).train(training)
    ours = build(model).double().train(training)
    ours.body.load_state_dict(peer.state_dict())
    images = [make_images(45, 71).requires_grad_() for _ in range(2)]
    maps = list(ours(images[0]).values()), peer(images[1])
    assert [tuple(x.shape[-2:]) for x in maps[0]] == [(6, 9), (3, 5), (2, 3)]
    note_inputs(images)
    for one, two in zip(*maps, strict=True):
        compare_tensors("outputs", one, two, limit=1e-12, relative=1e-10)
    for of_one in maps:
        sum(x.square().mean() for x in of_one).backward()
    pairs = [(images[0].grad, images[1].grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(ours.body.parameters(), peer.parameters(), strict=True)]
    compare_gradients(*(dict(enumerate(x)) for x in zip(*pairs, strict=True)), limit=1e-8)


@pytest.mark.parametrize(
    ("model", "channels", "count"),
    [("hgnetv2_b0", 512, 749_202), ("hgnetv2_femto", 512, 389_832), ("hgnetv2_atto", 256, 230_344)],
)
def test_cuts_of_hgnetv2_end_with_their_third_stage(model: str, channels: int, count: int) -> None:
    backbone = build(model, levels=("c4",))
    assert sum(p.numel() for p in backbone.parameters()) == count
    assert backbone.out_spec == {"c4": Level(channels, 16)}
    assert [tuple(x.shape) for x in backbone(torch.zeros(1, 3, 45, 71)).values()] == [(1, channels, 3, 5)]


def test_an_output_stride_dilates_the_levels_beyond_and_keeps_their_names() -> None:
    plain = randomize(build("resnet18", levels=EVERY)).eval()
    dilated = build("resnet18", levels=EVERY, output_stride=16).double().eval()
    assert [level.stride for level in dilated.out_spec.values()] == [2, 4, 8, 16, 16]
    dilated.load_state_dict(plain.state_dict())
    ours, theirs = dilated(make_images(100, 75)), plain(make_images(100, 75))
    assert ours["c5"].shape[-2:] == (7, 5)
    for name in EVERY[:-1]:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("model", "output_stride"), [("test_efficientnet", 8), ("test_convnext", 16)])
def test_an_output_stride_is_that_of_timm(model: str, output_stride: Any) -> None:
    peer = timm.create_model(model, features_only=True, output_stride=output_stride).eval()
    ours = build(model, output_stride=output_stride).eval()
    ours.body.load_state_dict(peer.state_dict())
    assert [x.stride for x in ours.out_spec.values()] == [8, *[min(16, output_stride)] * 2]
    images = torch.rand(2, 3, 64, 64)
    for one, two in zip(ours(images).values(), peer(images)[-3:], strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("model", "levels", "multiple"),
    [
        ("test_efficientnet", EVERY, 1),
        ("test_convnext", ("c2", "c4", "c5"), 32),
        ("mobilevitv2_050", ("c4", "c5"), 64),
        ("swin_tiny_patch4_window7_224", ("c2", "c3"), 8),
        ("hrnet_w18_small", ("c2",), 32),
        ("test_vit", ("c4",), 16),
    ],
)
def test_images_of_any_size(model: str, levels: tuple[str, ...], multiple: int) -> None:
    backbone = build(model, levels=levels).double().eval()
    assert backbone.multiple == multiple
    images = make_images(100, 75)
    padded = images.new_zeros(2, 3, -(-100 // multiple) * multiple, -(-75 // multiple) * multiple)
    padded[..., :100, :75] = images
    with torch.no_grad():
        actual, on_padded = backbone(images), backbone(padded)
    for name, level in backbone.out_spec.items():
        height, width = -(-100 // level.stride), -(-75 // level.stride)
        assert actual[name].shape == (2, level.channels, height, width)
        torch.testing.assert_close(actual[name], on_padded[name][..., :height, :width], rtol=1e-10, atol=1e-12)


def test_channels_last_maps_are_turned() -> None:
    levels = ("c2", "c3")
    ours = build("swin_tiny_patch4_window7_224", levels=levels).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        theirs = ours.body(x)
        for one, two in zip(ours(x).values(), theirs, strict=True):
            assert two.shape[-1] == one.shape[1]
            torch.testing.assert_close(one, two.permute(0, 3, 1, 2), rtol=0, atol=0)


def test_a_stride_that_is_no_power_of_two_takes_the_nearest_name() -> None:
    with torch.device("meta"):
        backbone = Timm(model="eva02_tiny_patch14_224", levels=("c4",))
    assert backbone.out_spec == {"c4": Level(192, 14)}
    assert backbone.multiple == 14


def test_what_is_beyond_the_last_level_is_not_built() -> None:
    backbone = build("tf_efficientnet_b0", levels=("c3",))
    assert len(backbone.body.blocks) == 3
    backbone(torch.rand(2, 3, 64, 64))["c3"].sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    with torch.device("meta"):
        assert count(Timm(model="resnet18", levels=("c4",))) < count(Timm(model="resnet18")) - 8_000_000


def test_what_no_level_depends_on_is_not_trained() -> None:
    backbone = build("hrnet_w18_small", levels=("c2",))
    frozen = [name for name, parameter in backbone.named_parameters() if not parameter.requires_grad]
    assert frozen
    backbone(torch.rand(2, 3, 64, 64))["c2"].sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == frozen
    with torch.device("meta"):
        assert all(p.requires_grad for p in Timm(model="hrnet_w18_small", levels=EVERY).parameters())


def test_frozen_norms_load_what_batch_norms_saved_and_compute_the_same() -> None:
    batch = randomize(build("test_efficientnet")).eval()
    frozen = build("test_efficientnet", norm="frozen").double().train()
    frozen.load_state_dict(batch.state_dict())
    norms = [module for module in frozen.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == 12
    assert {norm.eps for norm in norms} == {m.eps for m in batch.modules() if isinstance(m, nn.BatchNorm2d)}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    for name, level in frozen(make_images()).items():
        torch.testing.assert_close(level, batch(make_images())[name], rtol=1e-10, atol=1e-12)


def test_frozen_modules_stay_as_they_are() -> None:
    backbone = randomize(build("test_resnet", frozen=("conv1", "layer1.0"))).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    sum(level.square().sum() for level in backbone(make_images()).values()).backward()  # type: ignore[union-attr]
    still = {name for name, tensor in backbone.state_dict().items() if torch.equal(tensor, before[name])}
    moved = {name for name in before if "running" in name} - still
    assert {name for name in before if name.startswith("body.layer1.0.")} <= still
    assert any(name.startswith("body.layer2.0.") for name in moved)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    expected = {
        name for name, _ in backbone.named_parameters() if not name.startswith(("body.conv1.", "body.layer1.0."))
    }
    assert trained == expected
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} == expected


def test_options_reach_what_they_name() -> None:
    backbone = build("test_efficientnet", norm_momentum=0.01, drop_path=0.2)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.01}
    norm = norms[0]
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    backbone(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(norm.running_mean, 0.01 * seen[0].mean((0, 2, 3)))
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, timm.layers.DropPath)]
    assert rates == sorted(rates)
    assert 0.1 < rates[-1] <= 0.2
    assert {m.momentum for m in build("test_efficientnet").modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("model", ["test_efficientnet", "test_convnext"])
def test_export_with_a_free_batch(model: str) -> None:
    backbone = build(model).eval()
    exported = torch.export.export(
        backbone, (torch.rand(2, 3, 100, 75),), dynamic_shapes={"images": {0: torch.export.Dim("b")}}
    ).module()
    images = torch.rand(3, 3, 100, 75)
    for name, level in exported(images).items():
        torch.testing.assert_close(level, backbone(images)[name])


def test_the_default_is_exported_with_a_free_batch() -> None:
    backbone = Timm().eval()
    exported = torch.export.export(
        backbone, (torch.rand(2, 3, 64, 64),), dynamic_shapes={"images": {0: torch.export.Dim("b")}}
    ).module()
    images = torch.rand(3, 3, 64, 64)
    for name, level in exported(images).items():
        torch.testing.assert_close(level, backbone(images)[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet19"}, "unknown timm model 'resnet19'; nearest: resnet18, "),
        ({"model": "hf-hub:timm/resnet18.a1_in1k"}, "unknown timm model 'hf-hub:timm/resnet18"),
        ({"model": "hgnetv2_attt"}, "unknown timm model 'hgnetv2_attt'; nearest: hgnetv2_atto"),
        ({"model": "hgnetv2_atto", "output_stride": 16}, "model hgnetv2_atto takes no output_stride 16: "),
        ({"model": "qqq"}, "unknown timm model 'qqq'; see timm.list_models()"),
        (
            {"model": "test_convnext", "levels": ("c1", "c5")},
            r"has levels c2 \(stride 4\), c3 \(stride 8\), c4 \(stride 16\), c5 \(stride 32\); not c1$",
        ),
        ({"model": "test_vit"}, r"model test_vit has levels c4 \(stride 16\); not c3, c5"),
        ({"levels": ("c5", "c3")}, r"fine to coarse and each once, not \['c5', 'c3'\]"),
        ({"levels": ()}, r"fine to coarse and each once, not \[\]"),
        ({"model": "test_vit_relpos", "levels": ("c4",)}, "test_vit_relpos does not take images of any size: Input"),
        ({"model": "vgg11", "output_stride": 16}, "no feature maps of model vgg11 with output_stride 16"),
        ({"levels": ("c3", "c4"), "output_stride": 16}, "output_stride 16 changes none of the levels"),
        ({"model": "vgg11", "drop_path": 0.1}, "no feature maps of model vgg11 with drop_path_rate 0.1"),
        ({"drop_path": 1.0}, "drop_path is at least 0 and below 1, not 1.0"),
        ({"norm_momentum": 0.0}, "norm_momentum is above 0 and at most 1, not 0.0"),
        ({"norm_momentum": 0.1, "norm": "frozen"}, "norm_momentum 0.1 is of batch norms, and norm is frozen"),
        ({"model": "test_convnext", "norm": "frozen"}, "model test_convnext has no batch norms, so that a frozen norm"),
        ({"model": "test_resnet", "frozen": ("layer11",)}, "has no module 'layer11' to freeze; nearest: layer1"),
        ({"model": "test_resnet", "frozen": ("zzz",)}, "has no module 'zzz' to freeze; nearest: conv1, "),
        ({"model": "test_convnext", "norm_momentum": 0.1}, "no batch norms, so that norm_momentum 0.1"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        Timm(**options)
    assert "\n" not in str(caught.value)


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        Timm()


def test_listing_the_parts_does_not_import_timm() -> None:
    code = (
        "import sys; from boxwright.compose.parts import list_parts, part_summary; "
        "assert 'timm' in list_parts('backbones') and part_summary('backbones', 'timm'); "
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_run_once_for_each_of_its_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that do nothing depend on the levels; the second of a form knows them from the first."""
    monkeypatch.setattr(timm_backbone, "_FITS", {})
    options = {"model": "hrnet_w18_small"}
    forms = [{"levels": EVERY}, {"levels": EVERY[:2]}, {"levels": EVERY[:2], "norm": "frozen"}]

    def trained(form: dict[str, Any]) -> list[str]:
        with torch.device("meta"):
            return [name for name, p in Timm(**options, **form).named_parameters() if p.requires_grad]

    first = [trained(form) for form in forms]
    assert len(first[0]) > len(first[1]) > len(first[2])
    runs: list[str] = []
    monkeypatch.setattr(Timm, "_run_without_storage", lambda _, model, __: runs.append(model))
    assert [trained(form) for form in forms] == first
    assert not runs
