"""Activation checkpointing: less is kept for the backward pass, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from flat_options import train_options
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.ops.cpu_bfloat16 import cpu_operations
from boxwright.structures import Batch
from boxwright.training.activation_checkpointing import checkpoint_activations, find_blocks
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step
from float32_operations import listen

CPU = torch.device("cpu")
MakeDetector = Callable[..., Detector]


class Block(nn.Module):
    """Two layers with a norm and dropout, which counts its calls."""

    def __init__(self, *, is_in_place: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.is_in_place, self.calls = is_in_place, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.is_in_place:
            x = x.mul_(2.0)
        return self.second(nn.functional.dropout(self.norm(self.first(x)), 0.5))


def backward(model: nn.Module, *, checkpointing: bool) -> dict[str, Tensor]:
    torch.manual_seed(3)
    x = torch.rand(2, 4, 6, 6) * torch.ones(1, requires_grad=True)
    with checkpoint_activations(model) if checkpointing else nullcontext():
        output = model(x)
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**gradients, **dict(model.named_buffers()), "next draw": torch.rand(1)}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_blocks_run_again_with_the_same_draws_and_norms_count_once() -> None:
    plain = nn.Sequential(Block(), Block())
    again = deepcopy(plain)
    assert_equal(backward(plain, checkpointing=False), backward(again, checkpointing=True))
    assert [block.calls for block in (*plain, *again)] == [1, 1, 2, 2]
    assert [int(block.norm.num_batches_tracked) for block in again] == [1, 1]


def test_a_block_that_is_called_twice() -> None:
    """As the shared blocks of a recursive pyramid are."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block()])

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks[0](self.blocks[0](x))

    plain = Twice()
    assert_equal(backward(deepcopy(plain), checkpointing=False), backward(plain, checkpointing=True))
    assert int(plain.blocks[0].norm.num_batches_tracked) == 2


def test_a_list_that_grows_after_the_call() -> None:
    """As the maps of a dense block do."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Sum(), Sum()])

        def forward(self, x: Tensor) -> Tensor:
            maps = [x]
            for block in self.blocks:
                maps.append(block(maps))
            return maps[-1]

    class Sum(Block):
        def forward(self, x: list[Tensor]) -> Tensor:
            return super().forward(torch.stack(x).sum(0))

    plain = Dense()
    assert_equal(backward(deepcopy(plain), checkpointing=False), backward(plain, checkpointing=True))


def test_a_block_that_changes_its_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a Block changes its input in place.*activation_checkpointing false"):
        backward(nn.Sequential(Block(is_in_place=True), Block()), checkpointing=True)


def test_what_is_a_block() -> None:
    """The smallest element with several weights, but none with hooks inside, which would be called twice."""
    model = nn.Sequential(nn.Sequential(Block(), nn.Conv2d(4, 4, 1)), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    assert find_blocks(model) == [model[0][0]]
    model[0][0].register_forward_hook(lambda *_: None)
    assert find_blocks(model) == [model[0][0]]
    model[0][0].norm.register_forward_hook(lambda *_: None)
    assert find_blocks(model) == []


def test_nothing_stays_behind() -> None:
    model = nn.Sequential(Block(), Block())
    own = model[1].forward = model[1].forward
    with pytest.raises(RuntimeError), checkpoint_activations(model):
        model(torch.zeros(2, 5, 6, 6))
    assert "forward" not in model[0].__dict__
    assert model[1].forward is own


def step(detector: Detector, batch: Batch, *, model: nn.Module | None = None, **options: Any) -> dict[str, Tensor]:
    """Make a step; return loss, gradients and buffers."""
    chosen = train_options(batch_size=len(batch.targets), optimizer__max_grad_norm=0.0, **options)
    optimizer = make_optimizer(detector, chosen)
    torch.manual_seed(0)
    result = train_step(detector, model or detector, optimizer, batch, chosen, CPU)
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    return {"loss": torch.tensor(result.loss), **gradients, **dict(detector.named_buffers())}


@pytest.mark.parametrize(
    "options",
    [
        {"runtime__precision": "float32"},
        {"runtime__precision": "bfloat16"},
        {"runtime__precision": "float32", "batches__accumulate_steps": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_step_is_the_same(make_detector: MakeDetector, batch: Batch, options: Any, is_frozen: bool) -> None:
    plain = make_detector(num_classes=6)
    if is_frozen:
        plain.freeze(["backbone"])
    plain.train()
    again = deepcopy(plain)
    kept = {"backbone." + name: buffer.clone() for name, buffer in plain.backbone.named_buffers()}
    expected = step(plain, batch, **options)
    assert_equal(expected, step(again, batch, batches__activation_checkpointing=True, **options))
    assert is_frozen == all(torch.equal(expected[name], buffer) for name, buffer in kept.items())


def test_a_step_of_a_process_of_a_group(make_detector: MakeDetector, batch: Batch) -> None:
    plain = make_detector(num_classes=6).train()
    again = deepcopy(plain)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        parts = {"runtime__precision": "float32", "batches__accumulate_steps": 2}
        expected = step(plain, batch, model=DistributedDataParallel(plain), **parts)
        options = {**parts, "batches__activation_checkpointing": True}
        assert_equal(expected, step(again, batch, model=DistributedDataParallel(again), **options))
    finally:
        dist.destroy_process_group()


def kept_bytes(backbone: nn.Module, images: Tensor, *, checkpointing: bool) -> int:
    """Bytes of the tensors that the forward pass keeps for the backward pass, besides parameters."""
    known = {p.data_ptr() for p in backbone.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with checkpoint_activations(backbone) if checkpointing else nullcontext():
            levels = backbone(images)
        total = sum(kept.values())
    del levels
    return total


def test_less_is_kept() -> None:
    backbone = ResNet(depth=50, width=8)
    images = torch.rand(2, 3, 128, 128)
    plain, again = (kept_bytes(backbone, images, checkpointing=checkpointing) for checkpointing in (False, True))
    assert again < 0.5 * plain


def test_narrow_maps_are_exact_in_the_backward_pass_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context in which they are does not last until then."""
    calls = listen(monkeypatch)
    backbone, images = ResNet(depth=18, width=8), torch.rand(2, 3, 64, 32)
    with torch.autocast("cpu", torch.bfloat16), cpu_operations(images), checkpoint_activations(backbone):
        levels = backbone(images)
    forward = len(calls)
    sum(level.float().sum() for level in levels.values()).backward()
    assert forward > 0
    assert len(calls) == 2 * forward
