"""Memory that a step keeps from forward to backward, counted without a backward pass, and without any effect."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from boxwright.detector import Detector
from boxwright.devices import network_precision
from boxwright.structures import Batch
from boxwright.training.step import targets_to
from boxwright.workflows.fit_trial import Trial, make_batch

COPIES_OF_WEIGHTS = 6
"""Memory of weights, gradients, two moments of the optimizer, the moving average, and of averaging over processes."""


class _LimitReachedError(Exception):
    """More is kept than was asked about."""


def count_saved_bytes(detector: Detector, trial: Trial, precision: str, limit: int) -> int | None:
    """Count the bytes that one image of a trial keeps for the backward pass, its loss included.

    A copy of the detector goes forward, and random numbers are drawn from a state of their own: the detector, its
    norms' statistics and what is drawn later stay as they are.

    Args:
        detector: as training will begin with it.
        trial: the size of the image, its objects, and the device.
        precision: of the training.
        limit: stop there, which bounds what this takes itself.

    Returns:
        None where it is more than ``limit``, or where images are too small for a batch norm.
    """
    device = torch.device(trial.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        copy = deepcopy(detector).to(device).train()
        # One image whose maps have one cell cannot be normalized; two can.
        for count in (1, 2):
            ledger = _Ledger(copy, count * limit)
            try:
                _go_forward(copy, make_batch(trial, copy, count), precision, device, ledger)
            except _LimitReachedError:
                return None
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
            else:
                return ledger.total // count
    return None


def _go_forward(copy: Detector, batch: Batch, precision: str, device: torch.device, ledger: _Ledger) -> None:
    images, targets = batch.images.to(device), targets_to(batch.targets, device)
    if device.type == "cpu":
        # As in training, where convolutions on a CPU are fastest with channels last.
        copy.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    with saved_tensors_hooks(ledger.keep, lambda tensor: tensor):
        with network_precision(precision, device):
            output = copy(images, None, targets)
        copy.loss(output, targets)


class _Ledger:
    """The storages that are kept, each counted once; those of weights are there anyway."""

    def __init__(self, detector: Detector, limit: int) -> None:
        self.known = {tensor.untyped_storage().data_ptr() for tensor in (*detector.parameters(), *detector.buffers())}
        self.limit, self.total = limit, 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor; raise _LimitReachedError where that was too much."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.total += storage.nbytes()
        if self.total > self.limit:
            raise _LimitReachedError
        # Without its history, or what is kept would keep itself.
        return tensor.detach()
