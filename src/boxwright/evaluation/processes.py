"""Evaluation in several processes: each detects in a part of the images, the first measures, all get the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from boxwright_runtime.detections import Detections


def rank_of_process() -> tuple[int, int]:
    """Return this process's index and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@torch.no_grad()
def copy_from_first(model: nn.Module) -> None:
    """Give the model of every process the tensors of the first.

    Statistics of batch norms that are not synchronized are those of each process's images, and the first one's are
    stored.
    """
    if not dist.is_initialized():
        return
    for tensor in model.state_dict().values():
        shared = tensor.contiguous()
        dist.broadcast(shared, 0)
        tensor.copy_(shared)


def measure_together(
    detect: Callable[[], dict[int, Detections]],
    measure: Callable[[dict[int, Detections]], dict[str, Any]],
    image_ids: Sequence[int],
) -> dict[str, Any]:
    """Detect in parts and measure the whole, in all processes at once; an error of one is raised in all.

    Args:
        detect: makes the detections of this process's images, by image id.
        measure: numbers of the detections of all images; called in the first process alone.
        image_ids: of all images, in the order in which one process would come to them: among equal scores it counts.
    """
    if not dist.is_initialized():
        return measure(detect())
    outcomes: list[Any] = [None] * dist.get_world_size()
    is_first = dist.get_rank() == 0
    dist.gather_object(_attempt(detect), outcomes if is_first else None)
    shared = [_attempt(lambda: measure(_merge(outcomes, image_ids))) if is_first else None]
    dist.broadcast_object_list(shared, 0)
    if isinstance(shared[0], Exception):
        raise shared[0]
    return cast(dict[str, Any], shared[0])


def _attempt(work: Callable[[], Any]) -> Any:
    """Return the result, or the error: processes that wait for a result must hear of it."""
    try:
        return work()
    except Exception as error:
        # Others are not sure to be made anew in another process.
        return error if type(error).__module__ == "builtins" else RuntimeError(f"{type(error).__name__}: {error}")


def _merge(outcomes: Sequence[dict[int, Detections] | Exception], image_ids: Sequence[int]) -> dict[int, Detections]:
    detections: dict[int, Detections] = {}
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        detections |= outcome
    return {image_id: detections[image_id] for image_id in image_ids}
