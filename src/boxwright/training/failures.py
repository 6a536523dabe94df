"""Failures in the middle of training: the state as it was before the step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeptBuffers:
    """The buffers of a detector before a step: a forward that fails has changed the statistics of norms."""

    def __init__(self, detector: nn.Module) -> None:
        self._buffers = [buffer for buffer in detector.buffers() if buffer.numel()]
        self._copies: list[Tensor] | None = None
        self._are_whole = True

    @torch.no_grad()
    def keep(self) -> None:
        """Copy them, before a step."""
        if self._copies is None:
            self._copies = [buffer.clone() for buffer in self._buffers]
        else:
            torch._foreach_copy_(self._copies, self._buffers)
        self._are_whole = False

    def forget(self) -> None:
        """Take note that the step was done."""
        self._are_whole = True

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what a step that was not done has changed."""
        if not self._are_whole and self._copies is not None:
            torch._foreach_copy_(self._buffers, self._copies)
            self._are_whole = True
