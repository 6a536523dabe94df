"""A step's images in several processes and parts, each of which computes what it would if it had all of them.

What does depend on how images are spread are the statistics of batch norms, those of ``sync_norms`` aside over
processes, and dropout.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from boxwright.data.images import pad_inputs
from boxwright.detector import Detector
from boxwright.structures import Batch, LossTotals


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
    counts = torch.tensor([own.objects, own.images, own.matches or 0], device=device)
    dist.all_reduce(counts)
    objects, images, matches = counts.tolist()
    return LossTotals(objects, images, dist.get_world_size(), None if own.matches is None else matches)


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
