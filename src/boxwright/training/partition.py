"""A step's images in several processes and parts, each of which computes what it would if it had all of them.

What does depend on how images are spread are the statistics of batch norms, those of ``sync_norms`` aside over
processes, and dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from boxwright.contracts import AssigningHead
from boxwright.data.images import pad_inputs
from boxwright.detector import Detector
from boxwright.structures import Batch, LossTotals, Targets


def see_whole_step(
    detector: Detector, batch: Batch, num_parts: int, device: torch.device
) -> tuple[Batch, LossTotals | None]:
    """Give a process's images what they need to know of the other images of the step.

    All processes pad to the same size, because convolutions see padding and anchors are laid over it; all images know
    the number of objects of the fullest one, on which denoising queries depend.

    Args:
        detector: to be trained.
        batch: this process's images.
        num_parts: of the batch that go through the network one after another.
        device: of the detector, where processes exchange numbers.

    Returns:
        the batch, and what losses are divided by; None where one batch is the whole step, of which the head counts for
        itself what it needs, as some have to match to count.
    """
    most = max(len(target.labels) for target in batch.targets)
    if dist.is_initialized():
        height, width = batch.images.shape[-2:]
        sizes = torch.tensor([height, width, -height, -width, batch.padding_mask is not None, most], device=device)
        dist.all_reduce(sizes, dist.ReduceOp.MAX)
        height, width, least_height, least_width, is_padded, most = sizes.tolist()
        if is_padded or (height, width) != (-least_height, -least_width):
            batch = _pad_batch(batch, height, width, detector)
    elif num_parts == 1:
        return batch, None
    batch = batch._replace(targets=[target._replace(most_objects=most) for target in batch.targets])
    return batch, _add_totals(detector, batch, device)


def _pad_batch(batch: Batch, height: int, width: int, detector: Detector) -> Batch:
    """Pad a batch; it has a padding mask then, because boxes are cut to other sizes without one."""
    own_height, own_width = batch.images.shape[-2:]
    images, padding_mask = pad_inputs(list(batch.images), height, width, detector.input_format)
    if batch.padding_mask is not None:
        padding_mask[:, :own_height, :own_width] = batch.padding_mask
    more = (0, width - own_width, 0, height - own_height)
    targets = [t if t.masks is None else t._replace(masks=F.pad(t.masks, more)) for t in batch.targets]
    return batch._replace(images=images, padding_mask=padding_mask, targets=targets)


def _add_totals(detector: Detector, batch: Batch, device: torch.device) -> LossTotals:
    own = detector.totals(batch.targets, (batch.images.shape[-2], batch.images.shape[-1]))
    if not dist.is_initialized():
        return own
    objects, images, matches = add_over_processes([own.objects, own.images, own.matches or 0], device)
    numbers = torch.tensor([own.match_weights or 0, *own.auxiliary], dtype=torch.float64, device=device)
    if own.match_weights is not None or own.auxiliary:
        dist.all_reduce(numbers)
    weights, *auxiliary = numbers.tolist()
    return LossTotals(
        objects,
        images,
        dist.get_world_size(),
        None if own.matches is None else matches,
        None if own.match_weights is None else weights,
        tuple(auxiliary),
    )


def share_assignment(
    detector: Detector, output: Any, targets: Sequence[Targets], totals: LossTotals | None
) -> tuple[Any, LossTotals | None]:
    """Assign predictions where the head divides by what it assigns, and count the assigned of all processes.

    Args:
        detector: whose output it is.
        output: with targets.
        targets: one per image.
        totals: of the step; None where this output is of all of it, or complete where matches were counted before.

    Returns:
        the output and the totals, changed where the head is such a one.
    """
    head = assigning_head(detector)
    if totals is None or totals.matches is not None or head is None:
        return output, totals
    output, count = count_assigned(head, output, targets)
    return output, totals._replace(matches=add_over_processes([count], targets[0].boxes.device)[0])


def assigning_head(detector: Detector) -> AssigningHead | None:
    """Return the head where its losses are divided by what it assigns; else None."""
    head = detector.head
    return head if isinstance(head, AssigningHead) and head.divides_by_assigned else None


def count_assigned(head: AssigningHead, output: Any, targets: Sequence[Targets]) -> tuple[Any, int]:
    """Assign predictions, and count them; of those that cannot be assigned, count none.

    They raise in the loss, after other processes have got the number that they wait for.
    """
    try:
        output = head.assign(output, targets)
    except (ValueError, RuntimeError, IndexError):
        return output, 0
    return output, head.count_assigned(output)


def add_over_processes(counts: Sequence[int], device: torch.device) -> list[int]:
    """Add numbers of all processes."""
    if not dist.is_initialized():
        return list(counts)
    added = torch.tensor(counts, device=device)
    dist.all_reduce(added)
    return [int(count) for count in added.tolist()]


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into at most ``count`` parts of equal size, as far as that goes up."""
    if count == 1:
        return [batch]
    size = -(-len(batch.targets) // count)
    parts = []
    for first in range(0, len(batch.targets), size):
        part = slice(first, first + size)
        mask = None if batch.padding_mask is None else batch.padding_mask[part]
        parts.append(Batch(batch.images[part], mask, batch.targets[part], batch.sizes[part], batch.image_ids[part]))
    return parts
