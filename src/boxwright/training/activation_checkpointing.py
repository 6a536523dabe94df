"""Activation checkpointing: blocks keep their inputs alone, and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from boxwright.ops.cpu_bfloat16 import cpu_operations

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

MIN_WEIGHTS = 2
"""Weights of more than one dimension in a block. Of a single convolution the input is most of what there is to keep."""


@contextmanager
def checkpoint_activations(model: nn.Module) -> Iterator[None]:
    """Return a context in which the forward pass of a model keeps no activations inside its blocks.

    The backward pass, which may come after the context, computes them again: same losses, same gradients, and buffers
    as statistics of norms are updated once. Names of modules do not change, and a copy of the model made outside knows
    nothing of it.

    Args:
        model: any; where it has no blocks, nothing happens.
    """
    blocks = find_blocks(model)
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = partial(_run_block, block, block.forward)
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.__dict__["forward"]
            else:
                block.forward = own


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Find the blocks of a model: the smallest elements of sequences and lists that have several weights.

    In a ResNet these are the residual blocks, in a transformer its layers. A block with hooks inside is none, because
    they would be called twice.
    """
    blocks: dict[nn.Module, None] = {}
    _collect_blocks(model, blocks, is_element=False)
    return list(blocks)


def _collect_blocks(module: nn.Module, blocks: dict[nn.Module, None], *, is_element: bool) -> bool:
    """Add the blocks in a module, or the module itself; tell whether there were any."""
    is_container = isinstance(module, CONTAINERS)
    has_blocks = False
    for child in module.children():
        has_blocks |= _collect_blocks(child, blocks, is_element=is_container)
    is_plain = not any(module.children())
    if has_blocks or not is_element or is_container or is_plain or _has_inner_hooks(module):
        return has_blocks
    if sum(parameter.ndim > 1 for parameter in module.parameters()) < MIN_WEIGHTS:
        return False
    blocks[module] = None
    return True


def _has_inner_hooks(module: nn.Module) -> bool:
    inner = (one for one in module.modules() if one is not module)
    return any(one._forward_hooks or one._forward_pre_hooks for one in inner)


def _run_block(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Lists are taken apart: the caller may append to them before the backward pass.
    values, structure = tree_flatten((args, kwargs))

    def run(*values: Any) -> Any:
        args, kwargs = tree_unflatten(list(values), structure)
        return forward(*args, **kwargs)

    tensors = [value for value in values if isinstance(value, Tensor)]
    versions = [tensor._version for tensor in tensors]
    output = checkpoint(
        run, *values, use_reentrant=False, context_fn=lambda: (nullcontext(), _recomputation(block, tensors[0:1]))
    )
    if versions != [tensor._version for tensor in tensors]:
        raise ValueError(
            f"a {type(block).__name__} changes its input in place, so that it cannot be computed again; "
            "give train.batches.activation_checkpointing false"
        )
    return output


@contextmanager
def _recomputation(block: nn.Module, inputs: list[Tensor]) -> Iterator[None]:
    """Return a context for computing a block again: its buffers keep their values, and narrow maps are exact."""
    buffers = [(one._buffers, name, buffer) for one in block.modules() for name, buffer in one._buffers.items()]
    with ExitStack() as stack:
        convolutions: AbstractContextManager[object] = cpu_operations(inputs[0]) if inputs else nullcontext()
        stack.enter_context(convolutions)
        try:
            for owner, name, buffer in buffers:
                owner[name] = None if buffer is None else buffer.clone()
            yield
        finally:
            for owner, name, buffer in buffers:
                owner[name] = buffer
