"""A training step of either side: Boxwright's as its training loop does it, and the peer's as a plain loop does it.

Both have the same kind of optimizer, in its fused form, as transformers' trainer takes it too, the same learning rate
and decay, and clip the gradient at the same norm. Boxwright's loop also keeps a moving average of the weights, which
peers do not do, and which is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.structures import Batch, ImageSize, Targets
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import targets_to, train_step
from side_by_side import Action, autocast

LEARNING_RATE = 1e-5
"""Low, so that weights stay nearly as they are."""


def with_precision(options: TrainOptions, precision: str) -> TrainOptions:
    """Set the precision, and a learning rate that changes little."""
    runtime = replace(options.runtime, precision="bfloat16" if precision == "bfloat16" else "float32")
    return replace(options, lr=LEARNING_RATE, backbone_lr=None, runtime=runtime)


def our_step(
    detector: Detector, images: Tensor, targets: Sequence[Targets], options: TrainOptions, device: torch.device | str
) -> Action:
    """Return Boxwright's step: the same that ``boxwright train`` does with a batch."""
    device = torch.device(device)
    detector.to(device).train()
    if device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, options)
    sizes = [ImageSize(*target.size, *target.size) for target in targets]
    batch = Batch(images.to(device), None, targets_to(targets, device), sizes, list(range(len(targets))))
    return lambda: train_step(detector, detector, optimizer, batch, options, device)


def their_step(
    model: nn.Module, loss: Callable[[], Tensor], options: TrainOptions, device: torch.device | str
) -> Action:
    """Return a peer's step.

    Args:
        model: of the peer, on the device.
        loss: the loss of the batch, without autocast.
        options: of Boxwright's step, of which it takes optimizer, clipping and precision.
        device: of the model.
    """
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = options.optimizer
    optimizer: torch.optim.Optimizer
    if chosen.name == "sgd":
        optimizer = torch.optim.SGD(
            parameters, options.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(parameters, options.lr, weight_decay=chosen.weight_decay, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(options.runtime.precision, device):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, chosen.max_grad_norm or float("inf"))
        optimizer.step()

    return step
