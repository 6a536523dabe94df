"""``torch.compile`` in training: backbone and necks, where it pays."""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from boxwright.compose.train_options import TrainOptions, training_sizes
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.run import Run

LEAST_SECONDS = 1200.0
"""Time for each size of its images that a run has to last yet, for ``auto`` to try: a size takes a minute or two."""

MAX_SHAPES = 16
"""Shapes of network inputs that are compiled; steps of others run as written. Torch 2.14 cannot compile the gradients
for any shape at once (inductor compares strides that it does not know)."""

MEASURED_STEPS = 12
"""Steps whose median speed is compared, each way, beside those that compile."""

LEAST_GAIN = 0.03
"""Fraction of the time of a step that has to be saved, for ``auto`` to go on with what is compiled."""

COMPILED, AS_WRITTEN = "on", "off"


class Compilation:
    """Backbone and necks, compiled in training steps where it pays; anything else sees them as written.

    Waits until the momentum of norms no longer changes step by step (see ``MomentumRamp``), as each new value would be
    compiled anew. Each shape of network inputs is compiled by itself, the first ``MAX_SHAPES`` of them; torch keeps
    what is compiled in a folder of its own, so that the same run begins faster the next time.

    ``auto`` compares: where all inputs are squares and the run still has 20 minutes to go for each size, it measures
    steps as written, then compiled, and goes on with what is faster. What it decides is stored with the run, so that a
    resumed one computes alike; two equal runs may decide differently, so that nothing is compiled where
    ``train.runtime.deterministic`` asks for equal ones, nor in several processes.

    Args:
        run: all that training consists of; ``check_compilation`` has passed its options.
        progress: of the run; holds what was decided.
        world_size: number of processes.

    ``compiled_last_step`` tells whether the last step was one in which something was compiled.
    """

    def __init__(self, run: Run, progress: Progress, world_size: int) -> None:
        options = run.options
        self._run, self._progress = run, progress
        self._modules = _list_modules(run)
        self._compiled: list[Callable[..., Any]] = []
        self._speeds: list[float] = []
        self._speed_as_written = 0.0
        self._shapes: set[torch.Size] = set()
        self._asked = options.runtime.compile == COMPILED
        self.compiled_last_step = False
        self._may_try = (
            options.runtime.compile == "auto"
            and world_size == 1
            and not options.runtime.deterministic
            and run.detector.input_format.resize != "shortest_side"
            and _conflict(options, world_size) is None
            and has_compiler(next(run.detector.parameters()).device)
        )

    @contextmanager
    def step(self, shape: torch.Size, *, is_ramp_over: bool) -> Iterator[None]:
        """Run one training step inside, compiled where that was decided.

        Args:
            shape: of the network inputs of the step.
            is_ramp_over: the momentum of norms has stopped changing.
        """
        decided = self._may_try and self._progress.compiled == COMPILED
        tries = not self._progress.compiled and self._speed_as_written > 0
        is_on = is_ramp_over and (self._asked or tries or decided) and self._takes(shape)
        if is_on and not self._compiled:
            self._compile()
        start, self.compiled_last_step = time.monotonic(), False
        with self._install() if is_on else nullcontext():
            yield
        if self._may_try and is_ramp_over and not (self._progress.compiled or self.compiled_last_step):
            pixels = shape[0] * shape[-2] * shape[-1]
            self._speeds.append((time.monotonic() - start) / pixels)
            if len(self._speeds) == MEASURED_STEPS:
                self._decide(pixels)

    def _takes(self, shape: torch.Size) -> bool:
        """Tell whether inputs of this shape are compiled, or will be."""
        if len(self._shapes) < MAX_SHAPES:
            self._shapes.add(shape)
        return shape in self._shapes

    def _compile(self) -> None:
        # It warns of a missing GPU where none is asked for.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self._compiled = [torch.compile(module.forward, dynamic=False) for module in self._modules]

    def _take_note(self, _: object) -> None:
        self.compiled_last_step = True

    @contextmanager
    def _install(self) -> Iterator[None]:
        """Let the modules run what is compiled; methods of an object come before those of its class.

        Torch's options, and what it calls at the start of a compilation, are of the whole process: both are given back.
        """
        options = {
            # Only where it was asked for, a failure ends the run; else what cannot be compiled runs as written.
            "suppress_errors": not self._asked,
            # Inputs come with and without padding.
            "recompile_limit": max(torch._dynamo.config.recompile_limit, 2 * MAX_SHAPES),
        }
        for module, compiled in zip(self._modules, self._compiled, strict=True):
            module.__dict__["forward"] = compiled
        torch._dynamo.callback.on_compile_start(self._take_note)
        try:
            with torch._dynamo.config.patch(options):
                yield
        finally:
            torch._dynamo.callback.callback_handler.remove_start_callback(self._take_note)
            for module in self._modules:
                del module.__dict__["forward"]

    def _decide(self, pixels: int) -> None:
        """Begin to compile, or go on with what is faster, after so many steps of one kind."""
        speed, self._speeds = statistics.median(self._speeds), []
        if not self._speed_as_written:
            left = (self._progress.steps - self._progress.step) * speed * pixels
            options = self._run.options
            sizes = set(training_sizes(self._run.detector.input_format.image_size, options.batches.multi_scale))
            if left < LEAST_SECONDS * len(sizes):
                self._progress.compiled = AS_WRITTEN
            else:
                self._speed_as_written = speed
            return
        ratio = speed / self._speed_as_written
        self._progress.compiled = COMPILED if ratio < 1 - LEAST_GAIN else AS_WRITTEN
        outcome = "so they stay compiled" if self._progress.compiled == COMPILED else "so they go on as written"
        self._run.note(f"steps with backbone and necks compiled take {ratio:.2f} of the time, {outcome}")
        if self._progress.compiled == AS_WRITTEN:
            self._compiled = []


def _list_modules(run: Run) -> list[nn.Module]:
    """List backbone and necks that have parameters."""
    return [module for module in (run.detector.backbone, *run.detector.necks) if any(True for _ in module.parameters())]


def has_compiler(device: torch.device) -> bool:
    """Tell whether ``torch.compile`` finds what it needs here: a C++ compiler, or Triton for a GPU."""
    if device.type == "cuda":
        from boxwright.ops.deformable import HAS_TRITON

        return HAS_TRITON
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return any(name is not None and shutil.which(name) is not None for name in names)


def check_compilation(options: TrainOptions, rank: Rank) -> None:
    """Raise ValueError where compilation is asked for, but there is no compiler, or it conflicts with an option."""
    if options.runtime.compile != COMPILED:
        return
    if (conflict := _conflict(options, rank.world_size)) is not None:
        raise ValueError(f"--train.runtime.compile on does not go with {conflict}: leave one of both out")
    if not has_compiler(rank.device):
        what = "Triton" if rank.device.type == "cuda" else "a C++ compiler (g++, clang++ or $CXX)"
        raise ValueError(
            f"--train.runtime.compile on needs {what}, which is not here: install it, or leave the option out"
        )


def _conflict(options: TrainOptions, world_size: int) -> str | None:
    """Name an option that runs the modules in another way than torch.compile sees them."""
    if options.batches.activation_checkpointing:
        return "train.batches.activation_checkpointing"
    return "train.runtime.sharded" if options.runtime.sharded and world_size > 1 else None
