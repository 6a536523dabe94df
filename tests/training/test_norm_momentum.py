"""Short runs: running statistics of norms are those of the images, and nothing of what a new norm begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import list_recipes, resolve
from boxwright.structures import Batch, Category
from boxwright.training.loop import run_training
from boxwright.training.norm_momentum import MomentumRamp
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.run import Run
from boxwright.training.step import train_step
from boxwright.training.sync_norms import SyncedBatchNorm, _update

MakeRun = Callable[..., Run]

SLOW_NORMS = {
    *(f"efficientdet_{size}" for size in ("d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d7x")),
    *("deformable_detr_r50_bifpn", "faster_rcnn_r50_bifpn", "retinanet_r50_bifpn", "rtdetr_r18_bifpn"),
    "retinanet_r50_nasfpn",
}
"""Recipes with norms whose momentum is below torch's 0.1."""

FAST = {"efficientdet_d0", "retinanet_r50_nasfpn", "rtdetr_r18_bifpn"}


def batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(4, 2, 3, 3, generator=generator) * 3 + 7


def train(norm: _BatchNorm, steps: int, *, first: int = 0, parts: int = 1) -> None:
    ramp = MomentumRamp(norm, is_new=first == 0)
    for step, x in enumerate(batches(first + steps)):
        if step >= first:
            ramp.update()
            for part in x.chunk(parts):
                norm(part)
    ramp.end()


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.3])
@pytest.mark.parametrize("steps", [1, 3, 24, 90, 91, 1000])
def test_the_newest_batch_counts_ten_of_all_until_the_momentum_is_larger(momentum: float, steps: int) -> None:
    norm = nn.BatchNorm2d(2, momentum=momentum)
    train(norm, steps)
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for n, x in enumerate(batches(steps)):
        weight = max(momentum, 10 / (10 + n))
        mean += weight * (x.double().mean((0, 2, 3)) - mean)
        var += weight * (x.double().var((0, 2, 3)) - var)
    torch.testing.assert_close(norm.running_mean, mean.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, var.float(), rtol=1e-5, atol=1e-6)
    assert norm.momentum == momentum


def test_without_it_55_steps_leave_58_percent_of_the_zeros() -> None:
    plain, ramped = nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm2d(2, momentum=0.01)
    for x in batches(55):
        plain(x)
    train(ramped, 55)
    assert plain.running_mean is not None
    assert ramped.running_mean is not None
    assert (plain.running_mean / 7).mean() == pytest.approx(1 - 0.99**55, abs=0.02)
    assert (ramped.running_mean / 7).mean() == pytest.approx(1, abs=0.05)


def test_accumulated_parts_are_batches_of_the_norm() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.01)
    train(norm, 3, parts=4)
    mean = torch.zeros(2)
    for step, x in enumerate(batches(3)):
        for part in x.chunk(4):
            mean.lerp_(part.mean((0, 2, 3)), 10 / (10 + 4 * step))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 7, 89, 90, 130])
def test_a_resumed_run_goes_on_exactly(stop: int) -> None:
    unbroken, before, after = (nn.BatchNorm2d(2, momentum=0.1) for _ in range(3))
    train(unbroken, 150)
    train(before, stop)
    after.load_state_dict(before.state_dict())
    train(after, 150 - stop, first=stop)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_loaded_statistics_keep_their_momentum_from_the_first_step() -> None:
    """With their counter or without it, as from TensorFlow's weights."""
    for count in (0, 5, 400):
        norm = nn.BatchNorm2d(2, momentum=0.01)
        assert norm.running_mean is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.fill_(100.0)
        norm.num_batches_tracked.fill_(count)
        train(norm, 1)
        assert norm.running_mean.mean() == pytest.approx(99.07, abs=0.05), count


def test_what_is_not_trained_is_left_alone() -> None:
    frozen = nn.BatchNorm2d(2).eval()
    assert frozen.running_mean is not None
    frozen.running_mean.fill_(1.0)
    cumulative, stateless = nn.BatchNorm2d(2, momentum=None), nn.BatchNorm2d(2, track_running_stats=False)
    detector = nn.ModuleList([frozen, cumulative, stateless])
    ramp = MomentumRamp(detector, is_new=True)
    ramp.update()
    ramp.end()
    assert (frozen.momentum, cumulative.momentum, stateless.momentum) == (0.1, None, 0.1)
    assert frozen.num_batches_tracked == 0
    assert (frozen.running_mean == 1).all()


def test_synchronized_norms_have_it_too() -> None:
    norm = SyncedBatchNorm(2, momentum=0.01)
    ramp = MomentumRamp(norm, is_new=True)
    ramp.update()
    assert norm.momentum == 1
    _update(norm, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), 1e9)
    ramp.update()
    assert norm.momentum == 10 / 11
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([3.0, 4.0]))


def test_every_step_of_a_run_has_it(make_run: MakeRun) -> None:
    run = make_run(steps=3, batches__multi_scale=0.0)
    seen: list[Tensor] = []
    norm = next(one for one in run.detector.modules() if isinstance(one, nn.BatchNorm2d))
    norm.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].float().mean((0, 2, 3))) if module.training else None
    )
    run_training(run)
    assert len(seen) == 3
    mean = seen[0]
    for n, newest in enumerate(seen[1:], start=1):
        mean = mean.lerp(newest, 10 / (10 + n))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1


@pytest.mark.slow
def test_the_recipes_whose_norms_are_slow() -> None:
    slow = set()
    for name in list_recipes():
        with torch.device("meta"):
            detector = build_resolved(resolve(name).recipe, categories=[Category(1, "a")])
        momenta = [one.momentum for one in detector.modules() if isinstance(one, _BatchNorm)]
        assert [momentum for _, momentum in MomentumRamp(detector, is_new=False).norms] == momenta
        if any(momentum < 0.1 for momentum in momenta):
            slow.add(name)
    assert slow == SLOW_NORMS


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(SLOW_NORMS)]
)
def test_after_a_step_of_every_such_recipe_statistics_are_those_of_the_images(name: str) -> None:
    torch.manual_seed(0)
    detector = build_resolved(resolve(name, {"image_size": 128}).recipe, categories=[Category(1, "a")]).train()
    means: dict[_BatchNorm, list[Tensor]] = {}

    def note_mean(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, _BatchNorm)
        means.setdefault(module, []).append(inputs[0].mean((0, 2, 3)))

    norms = [one for one in detector.modules() if isinstance(one, _BatchNorm)]
    for norm in norms:
        norm.register_forward_pre_hook(note_mean)
    MomentumRamp(detector, is_new=True).update()
    with torch.no_grad():
        detector(torch.randn(2, 3, 128, 128))
    assert means
    for norm, seen in means.items():
        torch.testing.assert_close(norm.running_mean, seen[-1], rtol=1e-3, atol=1e-4)


SMALL = {
    "image_size": 64,
    "backbone": {"name": "resnet", "depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0},
    "neck": {"name": "bifpn", "out_channels": 16, "repeats": 1},
    "head": {"name": "efficientdet", "num_convs": 1},
    "train.lr": 0.05,
}


def test_a_short_run_has_the_loss_of_training_in_evaluation(batch: Batch) -> None:
    """As weights change quickly: without the ramp the loss in evaluation is many times that in training."""
    with_it, without = losses_after_55_steps(batch, True), losses_after_55_steps(batch, False)
    assert with_it[1] < 1.3 * with_it[0]
    assert without[1] > 2 * without[0]


def losses_after_55_steps(batch: Batch, has_ramp: bool) -> tuple[float, float]:
    recipe = resolve("efficientdet_d0", SMALL).recipe
    torch.manual_seed(0)
    detector = build_resolved(recipe, categories=[Category(i, f"c{i}") for i in range(8)]).train()
    for norm in detector.modules():
        if isinstance(norm, _BatchNorm):
            norm.momentum = 0.01
    optimizer, ramp = make_optimizer(detector, recipe.train), MomentumRamp(detector, is_new=True)
    trained = 0.0
    for step in range(55):
        set_lr(optimizer, min(1.0, (step + 1) / 10))
        if has_ramp:
            ramp.update()
        trained = train_step(detector, detector, optimizer, batch, recipe.train, torch.device("cpu")).loss
    detector.eval()
    with torch.no_grad():
        output = detector(batch.images, batch.padding_mask, batch.targets)
        return trained, float(sum(detector.loss(output, batch.targets).values()))
