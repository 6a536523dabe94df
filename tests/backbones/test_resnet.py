"""ResNet: equal to torchvision's, and dilation, frozen stages and levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection._utils import overwrite_eps

from boxwright.backbones.non_local import NonLocal
from boxwright.backbones.resnet import ResNet
from boxwright.backbones.resnet_vd import ResNetVD
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.layers.folding import fold_norms
from boxwright.structures import Level
from conformance import compare, compare_gradients, note_inputs

DEPTHS = [18, 34, 50, 101, 152]
EVERY = ("c2", "c3", "c4", "c5")


def theirs(depth: int, **options: object) -> nn.Module:
    """torchvision's, without the classifier."""
    model: nn.Module = getattr(torchvision.models, f"resnet{depth}")(**options)
    model.fc = nn.Identity()
    return model


def outputs(peer: nn.Module, x: Tensor) -> list[Tensor]:
    x = peer.maxpool(peer.relu(peer.bn1(peer.conv1(x))))
    levels = []
    for stage in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def randomize(module: nn.Module) -> nn.Module:
    """Weights and statistics without any special value, in float64, such that no depth explodes."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight.data, 0.5, 0.9),
                (norm.bias.data, -0.2, 0.2),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.8, 1.5),
            ):
                assert tensor is not None
                tensor.uniform_(low, high, generator=generator)
    return module.double()


def make_images(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_equal(ours: ResNet, peer: nn.Module, x: Tensor) -> None:
    """Levels, and the gradients of every parameter and of the image, of a projection of all levels."""
    ours.load_state_dict(peer.state_dict())
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    levels = list(ours.double()(inputs[0]).values()), outputs(peer, inputs[1])
    generator = torch.Generator().manual_seed(2)
    projections = [torch.randn(level.shape, generator=generator, dtype=level.dtype) for level in levels[1]]
    note_inputs(x)
    for name, one, two in zip(EVERY, *levels, strict=True):
        compare("outputs", ((one - two).norm() / two.norm()).item(), 1e-10, of=name)
    for side in levels:
        sum((level * w / level.numel()).sum() for level, w in zip(side, projections, strict=True)).backward()
    gradients = [
        {name: p.grad for name, p in module.named_parameters()} | {"images": images.grad}
        for module, images in zip((ours, peer), inputs, strict=True)
    ]
    compare_gradients(*gradients, limit=1e-8)


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_and_shapes_in_checkpoints_are_those_of_torchvision(depth: int) -> None:
    with torch.device("meta"):
        ours, peer = ResNet(depth=depth, levels=EVERY), theirs(depth)  # type: ignore[arg-type]
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, v.shape) for k, v in peer.state_dict().items()]


@pytest.mark.conforms("ResNet", "torchvision")
@pytest.mark.parametrize(
    ("depth", "training"),
    [
        (18, True),
        (34, False),
        (50, True),
        pytest.param(101, False, marks=pytest.mark.slow),
        pytest.param(152, False, marks=pytest.mark.slow),
    ],
)
def test_outputs_and_gradients_are_those_of_torchvision(depth: int, training: bool) -> None:
    peer = randomize(theirs(depth)).train(training)
    ours = ResNet(depth=depth, levels=EVERY).train(training)  # type: ignore[arg-type]
    assert_equal(ours, peer, make_images())
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, peer.state_dict()[name], rtol=1e-10, atol=1e-12)


@pytest.mark.conforms("ResNet", "torchvision")
@pytest.mark.parametrize("dilation", ["after_first", "all"])
def test_a_dilated_c5_is_that_of_torchvision_or_has_all_convolutions_dilated(dilation: str) -> None:
    peer = randomize(theirs(50, replace_stride_with_dilation=[False, False, True])).eval()
    if dilation == "all":
        # As detectron2's RES5_DILATION = 2.
        peer.layer4[0].conv2.dilation = peer.layer4[0].conv2.padding = (2, 2)
    ours = ResNet(depth=50, levels=EVERY, dilation=dilation).eval()  # type: ignore[arg-type]
    assert_equal(ours, peer, make_images(64, 72))
    assert ours.out_spec["c5"] == Level(2048, 16)


@pytest.mark.parametrize(("dilation", "first"), [("after_first", 1), ("all", 2)])
def test_a_dilated_c5_convolution_by_convolution(dilation: str, first: int) -> None:
    def shape(conv: nn.Conv2d) -> tuple[int, int, int, int]:
        return conv.kernel_size[0], conv.stride[0], conv.padding[0], conv.dilation[0]

    with torch.device("meta"):
        plain, dilated = ResNet(), ResNet(dilation=dilation)  # type: ignore[arg-type]
    assert shape(plain.layer4[0].conv2) == (3, 2, 1, 1)
    assert shape(plain.layer4[0].downsample[0]) == (1, 2, 0, 1)
    assert [shape(block.conv1) for block in dilated.layer4] == [(1, 1, 0, 1)] * 3
    assert [shape(block.conv2) for block in dilated.layer4] == [(3, 1, first, first), (3, 1, 2, 2), (3, 1, 2, 2)]
    assert [shape(block.conv3) for block in dilated.layer4] == [(1, 1, 0, 1)] * 3
    assert shape(dilated.layer4[0].downsample[0]) == (1, 1, 0, 1)
    rest = [module for name, module in dilated.named_modules() if not name.startswith("layer4")]
    assert {conv.dilation for conv in rest if isinstance(conv, nn.Conv2d)} == {(1, 1)}
    assert [(k, v.shape) for k, v in plain.state_dict().items()] == [
        (k, v.shape) for k, v in dilated.state_dict().items()
    ]


@pytest.mark.parametrize("depth", [18, 50])
def test_every_second_cell_of_a_dilated_c5_is_the_plain_c5(depth: int) -> None:
    plain = randomize(ResNet(depth=depth, width=8)).eval()  # type: ignore[arg-type]
    dilated, fcis = (ResNet(depth=depth, width=8, dilation=d).double().eval() for d in ("after_first", "all"))  # type: ignore[arg-type]
    for other in (dilated, fcis):
        other.load_state_dict(plain.state_dict())
    x = make_images(100, 75)
    assert dilated(x)["c5"].shape[-2:] == (7, 5)
    torch.testing.assert_close(dilated(x)["c5"][..., ::2, ::2], plain(x)["c5"], rtol=1e-10, atol=1e-12)
    assert (fcis(x)["c5"][..., ::2, ::2] - plain(x)["c5"]).abs().max() > 1e-3


@pytest.mark.parametrize(("depth", "total"), [(18, 11_689_512), (50, 25_557_032), (101, 44_549_160)])
def test_published_parameter_counts(depth: int, total: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth=depth)  # type: ignore[arg-type]
    width = backbone.out_spec["c5"].channels
    assert sum(p.numel() for p in backbone.parameters()) == total - 1000 * (width + 1)


@pytest.mark.parametrize("dilation", ["none", "after_first", "all"])
def test_counts_as_detr_trains_it(dilation: str) -> None:
    with torch.device("meta"):
        backbone = ResNet(norm="frozen", frozen_stages=2, levels=("c5",), dilation=dilation)  # type: ignore[arg-type]
    assert sum(p.numel() for p in backbone.parameters()) == 23_454_912
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == 23_454_912 - 222_400
    assert sum(b.numel() for b in backbone.buffers()) == 106_240
    assert not any("bn" in name for name, _ in backbone.named_parameters())


def test_levels_of_the_published_depths() -> None:
    with torch.device("meta"):
        assert ResNet(depth=18).out_spec == {"c3": Level(128, 8), "c4": Level(256, 16), "c5": Level(512, 32)}
        assert ResNet(depth=152, levels=("c2", "c5")).out_spec == {"c2": Level(256, 4), "c5": Level(2048, 32)}
        assert ResNet(dilation="all").out_spec == {"c3": Level(512, 8), "c4": Level(1024, 16), "c5": Level(2048, 16)}


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 5])
def test_frozen_stages_are_the_first_ones_and_constant_in_training(frozen_stages: int) -> None:
    backbone = ResNet(depth=18, width=4, frozen_stages=frozen_stages).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad] or [torch.zeros(1)], lr=0.1)
    loss = sum(level.square().mean() for level in backbone(torch.rand(2, 3, 64, 64)).values())
    if frozen_stages < 5:
        loss.backward()  # type: ignore[union-attr]
    optimizer.step()
    frozen = [("conv1.", "bn1."), *((f"layer{i}.",) for i in range(1, 5))][:frozen_stages]
    prefixes = tuple(prefix for stage in frozen for prefix in stage)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(prefixes), name


def test_frozen_norms_load_what_batch_norms_saved_and_compute_the_same() -> None:
    batch = randomize(ResNet(depth=18, width=4)).eval()
    frozen = ResNet(depth=18, width=4, norm="frozen").double().train()
    frozen.load_state_dict(batch.state_dict())
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules()) == 20
    x = make_images()
    for name, level in frozen(x).items():
        torch.testing.assert_close(level, batch(x)[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [18, 50])
def test_epsilon_is_of_every_norm_as_torchvision_overwrites_it(depth: Any) -> None:
    peer = theirs(depth, norm_layer=torchvision.ops.FrozenBatchNorm2d).double()
    generator = torch.Generator().manual_seed(0)
    for norm in peer.modules():
        if isinstance(norm, torchvision.ops.FrozenBatchNorm2d):
            norm.running_var.uniform_(1e-4, 1.5, generator=generator)
            norm.weight.uniform_(0.5, 0.9, generator=generator).mul_(norm.running_var.sqrt())
    overwrite_eps(peer, 0.0)  # type: ignore[arg-type]
    ours = ResNet(depth=depth, levels=EVERY, norm="frozen", norm_eps=0.0).double()
    ours.load_state_dict(peer.state_dict())
    for own, expected in zip(ours(make_images()).values(), outputs(peer, make_images()), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)
    with_default = ResNet(depth=depth, levels=EVERY, norm="frozen").double()
    with_default.load_state_dict(peer.state_dict())
    assert (with_default(make_images())["c5"] - expected).abs().max() > 1e-4
    with pytest.raises(ValueError, match="norm_eps is at least 0, not -1"):
        ResNet(norm_eps=-1.0)


@pytest.mark.parametrize("backbone", [ResNet, ResNetVD, NonLocal])
def test_epsilon_of_the_family(backbone: type[nn.Module]) -> None:
    kinds = (nn.BatchNorm2d, FrozenBatchNorm2d)
    made = backbone(depth=50, width=4, norm_eps=0.25, frozen_stages=2)
    norms = {name: norm.eps for name, norm in made.named_modules() if isinstance(norm, kinds)}
    assert len(norms) > 50
    assert {eps for name, eps in norms.items() if "non_local" not in name} == {0.25}


def test_a_chosen_level_is_the_same_as_among_all_and_stages_beyond_are_not_built() -> None:
    every = ResNet(depth=18, width=4, levels=EVERY).eval()
    some = ResNet(depth=18, width=4, levels=("c2", "c4")).eval()
    assert not hasattr(some, "layer4")
    some.load_state_dict({name: every.state_dict()[name] for name in some.state_dict()})
    x = torch.rand(1, 3, 64, 64)
    assert list(some(x)) == ["c2", "c4"]
    for name, level in some(x).items():
        torch.testing.assert_close(level, every(x)[name], rtol=0, atol=0)


def test_initial_weights_keep_the_variance_of_the_gradient() -> None:
    torch.manual_seed(0)
    backbone = ResNet(depth=50)
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.out_channels * conv.kernel_size[0] ** 2
            assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert all((norm.weight == 1).all() for norm in backbone.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"levels": ()},
            r"levels are some of \['c2', 'c3', 'c4', 'c5'\], fine to coarse and each once, not \[",
        ),
        ({"levels": ("c5", "c3")}, "fine to coarse"),
        ({"levels": ("c3", "c3")}, "each once"),
        ({"width": 0}, "width is at least 1, not 0"),
        ({"frozen_stages": 6}, "frozen_stages is between 0"),
        ({"dilation": "all", "levels": ("c3", "c4")}, "dilation all is of c5, which is not among the levels"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("depth", "dilation"), [(18, "none"), (50, "after_first"), (50, "all")])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_folded_norms_change_no_output(depth: Any, dilation: Any, norm: Any) -> None:
    torch.manual_seed(0)
    backbone = ResNet(depth=depth, width=8, dilation=dilation, norm=norm).double().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    expected = backbone(images)
    fold_norms(backbone)
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    for name, level in backbone(images).items():
        torch.testing.assert_close(level, expected[name], rtol=1e-9, atol=1e-9)
