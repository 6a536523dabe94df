"""Search for the first values of a step that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.structures import Batch, LossTotals
from boxwright.training.distillation import Teacher
from boxwright.training.step import StepResult, compute_gradients

Kind = Literal["image", "weights", "output", "input", "loss", "gradient"]


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """The first values of a step that are not finite.

    Args:
        kind: ``image``: pixels of the batch; ``weights``: those of a module; ``output`` of a module with finite inputs
            and weights; ``input``: what a module is given by the code around it; ``loss``: a term of the loss of finite
            predictions; ``gradient``: in the backward pass.
        name: path of the module, or of the parameter; name of the term; empty for images.
        part: class of the module; empty where it is none.
        precision: type of the values.
        count: values that are not finite.
        total: values of the tensor.
        largest: largest finite value of the module's inputs and weights, or else of the tensor itself; 0 where there is
            none.
    """

    kind: Kind
    name: str
    part: str = ""
    precision: str = ""
    count: int = 0
    total: int = 0
    largest: float = 0.0

    def describe(self) -> str:
        """Describe it in a clause."""
        module = f"{self.name or 'the detector'}{f' ({self.part})' if self.part else ''}"
        values = f"{self.count} of {self.total} values of {self.precision} are not finite"
        largest = f"the largest finite value is {self.largest:.3g}"
        return {
            "image": f"in the images, {values}",
            "weights": f"in the weights of {module}, {values}",
            "output": f"in the output of {module}, whose inputs and weights are finite ({largest}), {values}",
            "input": f"in the input of {module}, which no module before it put out, {values}",
            "loss": f"the loss {self.name} is not finite, and the predictions are",
            "gradient": f"forward and losses are finite; backward, in the gradient of {module}, {values}; {largest}",
        }[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class StepDiagnosis:
    """A step that was repeated and watched.

    Args:
        result: losses and norm of the gradient.
        overflow: first values that are not finite; None where all are.
    """

    result: StepResult
    overflow: Overflow | None


def diagnose_step(
    detector: Detector,
    batch: Batch,
    options: TrainOptions,
    device: torch.device,
    *,
    totals: LossTotals | None,
    noise_seed: int,
    teacher: Teacher | None = None,
) -> StepDiagnosis:
    """Repeat the forward and backward of a step, and watch every module; no weight changes, statistics of norms do.

    Args:
        detector: as it was before the step; it has no gradients afterward.
        batch: this process's images of the step.
        options: of the training.
        device: of the detector.
        totals: of the whole step.
        noise_seed: that torch was seeded with for this step.
        teacher: of the distillation; None without.
    """
    if teacher is not None:
        batch = teacher.teach(batch)
    detector.zero_grad(set_to_none=True)
    torch.manual_seed(noise_seed)
    with _watch(detector) as watch:
        result = compute_gradients(detector, detector, batch, options, device, totals)
    detector.zero_grad(set_to_none=True)
    if not bool(batch.images.isfinite().all()):
        return StepDiagnosis(result, _overflow("image", "", [batch.images]))
    lost = next((name for name, value in result.losses.items() if not math.isfinite(value)), None)
    loss = None if lost is None else Overflow(kind="loss", name=lost)
    norm = None if result.is_finite else Overflow(kind="gradient", name="", precision="float32", count=1, total=1)
    # Backward, a gradient of a loss that is not finite says nothing more; nor does any of a step that is fine.
    later = None if result.is_finite else (loss or watch.backward or norm)
    return StepDiagnosis(result, None if result.is_finite else (watch.forward or later))


class _Watch:
    """The first values that are not finite, forward and backward."""

    def __init__(self) -> None:
        self.forward: Overflow | None = None
        self.backward: Overflow | None = None

    def before(self, path: str) -> Callable[..., None]:
        """Make a hook that looks at the inputs of a module."""

        def look(module: nn.Module, args: Any, kwargs: Any) -> None:
            # Masks may hold infinities; what is learned flows through tensors that have gradients.
            given = [x for x in _floats((args, kwargs)) if x.requires_grad]
            if self.forward is None and not _are_finite(given):
                self.forward = _overflow("input", path, given, type(module).__name__)

        return look

    def after(self, path: str) -> Callable[..., None]:
        """Make a hook that looks at the outputs of a module, and at their gradients later."""

        def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            outputs, own = _floats(output), [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if self.forward is None and not _are_finite(outputs):
                weights = [x for x in own if x.is_floating_point()]
                if _are_finite(weights):
                    inputs = [x for x in (*_floats((args, kwargs)), *weights) if x.requires_grad]
                    self.forward = _overflow("output", path, outputs, type(module).__name__, inputs)
                else:
                    self.forward = _overflow("weights", path, weights, type(module).__name__)
            for tensor in outputs:
                if tensor.requires_grad:
                    tensor.register_hook(self.gradient(path, type(module).__name__))

        return look

    def gradient(self, path: str, part: str = "") -> Callable[[Tensor], None]:
        """Make a hook that looks at a gradient."""

        def look(gradient: Tensor) -> None:
            if self.backward is None and not _are_finite([gradient]):
                self.backward = _overflow("gradient", path, [gradient], part)

        return look


@contextmanager
def _watch(detector: Detector) -> Iterator[_Watch]:
    watch, handles = _Watch(), []
    for path, module in detector.named_modules():
        handles.append(module.register_forward_pre_hook(watch.before(path), with_kwargs=True))
        handles.append(module.register_forward_hook(watch.after(path), with_kwargs=True))
    for path, parameter in detector.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(watch.gradient(path)))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _floats(values: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point()]


def _are_finite(tensors: list[Tensor]) -> bool:
    return all(bool(x.detach().isfinite().all()) for x in tensors)


def _overflow(
    kind: Kind, name: str, tensors: list[Tensor], part: str = "", inputs: list[Tensor] | None = None
) -> Overflow:
    """Describe the first of the tensors that is not finite; the largest finite value is of ``inputs``, or its own."""
    broken = next(x.detach() for x in tensors if not _are_finite([x]))
    values = [x.detach() for x in inputs or [broken]]
    finite = [x[x.isfinite()] for x in values]
    return Overflow(
        kind=kind,
        name=name,
        part=part,
        precision=str(broken.dtype).removeprefix("torch."),
        count=int((~broken.isfinite()).sum()),
        total=broken.numel(),
        largest=max((float(x.abs().max()) for x in finite if x.numel()), default=0.0),
    )
