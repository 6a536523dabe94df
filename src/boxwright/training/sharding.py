"""Training with parameters, gradients and moments of the optimizer spread over the processes, by FSDP2."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree

from boxwright.detector import Detector


def shard_detector(detector: Detector, device: torch.device) -> None:
    """Leave each process its shard of every parameter; whole ones exist while their part computes.

    The parts of the slots are groups, whose parameters are gathered and freed together. Numbers alone (parameters
    without dimensions) stay whole in each process, as do buffers.

    Args:
        detector: the same in every process, and on its device.
        device: of this process.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    numbers = {parameter for parameter in detector.parameters() if parameter.ndim == 0}
    # FSDP2 warns of outputs that are views, which it could not tell when somebody changed them in place: no part does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.data = parameter.data.contiguous()
    for part in (detector.backbone, *detector.necks, detector.head):
        if any(parameter.ndim for parameter in part.parameters()):
            fully_shard(part, mesh=mesh, ignored_params=numbers)
    fully_shard(detector, mesh=mesh, ignored_params=numbers)


def is_sharded(model: nn.Module) -> bool:
    """Tell if the parameters of a model are spread over the processes."""
    return isinstance(model, FSDPModule)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, in the same memory; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """Gather a tensor from its shards, in all processes; return one that is whole as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_tensors(tree: Any, *, keep: bool) -> Any:
    """Gather all tensors in nested dictionaries and lists onto the CPU, one after another, in all processes.

    Args:
        tree: with shards, and tensors and values of any kind, which stay as they are.
        keep: return the whole tensors; without it, a process only takes part, and has None in their place.
    """

    def gather(tensor: DTensor) -> Tensor | None:
        whole = tensor.full_tensor()
        return whole.cpu() if keep else None

    return pytree.tree_map_only(DTensor, gather, tree)


def shard_like(tensor: Any, like: Any) -> Any:
    """Take this process's shard of a whole tensor as ``like`` is sharded; anything else stays as it is."""
    if not isinstance(like, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != like.shape:
        return tensor
    # Every process has read the same file: none has to send.
    return distribute_tensor(tensor.contiguous(), like.device_mesh, like.placements, src_data_rank=None)


def load_whole_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a model, whether it is sharded or not; raises as ``load_state_dict`` does."""
    if is_sharded(model):
        own = model.state_dict()
        weights = {name: shard_like(tensor, own.get(name)) for name, tensor in weights.items()}
    model.load_state_dict(weights)


def begin_part(model: nn.Module, *, is_first: bool, is_last: bool) -> None:
    """Prepare for one of the parts that a step is accumulated in, as ``DistributedDataParallel`` does.

    Buffers become those of the first process, and gradients are exchanged after the last part alone.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = is_last
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        if is_first:
            _copy_buffers_from_first(model)


@torch.no_grad()
def _copy_buffers_from_first(model: FSDPModule) -> None:
    assert isinstance(model, nn.Module)
    kinds: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for buffer in model.buffers():
        kinds[buffer.dtype].append(buffer)
    for buffers in kinds.values():
        values = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(values, 0)
        pieces = values.split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [piece.view_as(own) for piece, own in zip(pieces, buffers, strict=True)])


@torch.no_grad()
def average_gradients_of_numbers(model: nn.Module) -> None:
    """Average the gradients of parameters that are not sharded over the processes, after the last part of a step."""
    if not is_sharded(model):
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None and not isinstance(p, DTensor)]
    if gradients:
        values = torch.stack(gradients)
        dist.all_reduce(values)
        torch._foreach_copy_(gradients, list((values / dist.get_world_size()).unbind()))


class WholeDetector:
    """A detector that is whole in each process, where the one in training is sharded.

    Processes evaluate other numbers of images, and gathering parameters for each of them would let them wait for each
    other for ever.

    Args:
        detector: before it is sharded; its copy waits on the CPU.
        device: of this process.
        is_needed: the detector is going to be sharded.
    """

    def __init__(self, detector: Detector, device: torch.device, *, is_needed: bool) -> None:
        self._copy = deepcopy(detector).cpu() if is_needed else None
        self._device = device

    @contextmanager
    def of(self, detector: Detector) -> Iterator[Detector]:
        """Give the whole of a sharded detector while the context lasts, in all processes; of another one, itself."""
        if self._copy is None or not is_sharded(detector):
            yield detector
            return
        copy = self._copy.to(self._device)
        try:
            with torch.no_grad():
                own = copy.state_dict()
                for name, tensor in detector.state_dict().items():
                    own[name].copy_(whole_tensor(tensor))
            copy.passport = detector.passport
            yield copy
        finally:
            copy.cpu()
