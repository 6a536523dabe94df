"""Masks of queries at random points of an image, where they are compared with those of the objects."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32
from boxwright.ops.image_draws import Purpose, image_generator
from boxwright.queries.mask_branch import MASK_STRIDE, MaskFactors, multiply
from boxwright.structures import Targets

CELLS_PER_POINT = 16
OVERSAMPLING = 3
UNCERTAIN_FRACTION = 0.75


class MaskPoints(NamedTuple):
    """Random points of an image, (x, y) as fractions of it inside its padding.

    Costs are computed at those for ``matching``. Losses of an object are computed at the most uncertain of its
    ``candidates``, and at its ``others``.
    """

    matching: Float[Tensor, "p 2"]
    candidates: Float[Tensor, "n c 2"]
    others: Float[Tensor, "n r 2"]

    @property
    def num_uncertain(self) -> int:
        """Number of candidates of an object that losses are computed at."""
        return len(self.matching) - self.others.shape[1]


class MaskTargets(NamedTuple):
    """Masks of the objects of one image, and the points at which they are compared with predictions.

    ``masks`` are in pixels of the network input; ``size`` is (height, width) of the image inside its padding, likewise.
    """

    masks: Bool[Tensor, "n h w"]
    size: tuple[int, int]
    points: MaskPoints

    def look_up(self, points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p"]:
        """Look up 1 where the pixel of a point of each object is the object's, else 0."""
        height, width = self.size
        columns, rows = ((points[..., i] * side).long().clamp(max=side - 1) for i, side in ((0, width), (1, height)))
        objects = torch.arange(len(self.masks), device=self.masks.device)[:, None]
        return self.masks[objects, rows, columns].to(points.dtype)


def draw_mask_points(
    num_objects: int, size: tuple[int, int], *, seed: int | None = None, device: torch.device | None = None
) -> MaskPoints:
    """Draw the points of an image: a sixteenth of its cells, for each object.

    Args:
        num_objects: of the image.
        size: (height, width) of the image inside its padding, in pixels of the network input.
        seed: of the image, see ``Targets``; torch's global generator draws where None.
        device: of the points.
    """
    device = device or torch.device("cpu")
    generator = None if seed is None else image_generator(seed, Purpose.MASKS, device)
    rows, columns = (-(-side // MASK_STRIDE) for side in size)
    count = max(rows, rows * columns // CELLS_PER_POINT)
    num_others = count - int(UNCERTAIN_FRACTION * count)
    shapes = (count, 2), (num_objects, OVERSAMPLING * count, 2), (num_objects, num_others, 2)
    return MaskPoints(*(torch.rand(shape, generator=generator, device=device) for shape in shapes))


def make_mask_targets(target: Targets) -> MaskTargets:
    """Draw points for the masks of an image.

    Raises:
        ValueError: it has objects and no masks.
    """
    count, device = len(target.labels), target.boxes.device
    masks = target.masks
    if masks is None:
        if count:
            raise ValueError("this head is trained on masks, and the targets have none")
        masks = torch.zeros(0, *target.size, dtype=torch.bool, device=device)
    points = draw_mask_points(count, target.size, seed=target.seed, device=device)
    return MaskTargets(masks, target.size, points)


def place_points(
    points: Float[Tensor, "n p 2"], size: tuple[int, int], covered: tuple[int, int]
) -> Float[Tensor, "n p 2"]:
    """Place points of an image on maps that may reach beyond it, where their region is from -1 to 1.

    Args:
        points: as fractions of the image.
        size: (height, width) of the image, in pixels.
        covered: likewise, of the maps.
    """
    scale = points.new_tensor([size[1] / covered[1], size[0] / covered[0]])
    return points * scale * 2 - 1


def sample_points(maps: Float[Tensor, "n c h w"], placed: Float[Tensor, "n p 2"]) -> Float[Tensor, "n c p"]:
    """Interpolate maps at points that ``place_points`` has placed, bilinearly.

    Beyond the middle of outermost cells they are as these.
    """
    grid = placed[:, :, None].to(maps.dtype)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)[..., 0]


@torch.no_grad()
def compute_mask_costs(masks: MaskFactors, image: int, target: MaskTargets) -> tuple[Tensor, Tensor]:
    """Compute the cost of each query for each object of an image, at the same points: cross entropy and dice loss.

    Args:
        masks: of all images.
        image: index in the batch, of all groups.
        target: of that image.

    Returns:
        two tensors (layers, queries, objects).

    Source: ``HungarianMatcher`` of roboflow/rf-detr 35ac6ab and Intellindust-AI-Lab/EdgeCrafter 706d037. Differs in
    drawing the points for an image, where theirs draw for each layer and batch.
    """
    with torch.autocast(masks.queries.device.type, enabled=False):
        return _compute_costs(masks, image, target)


def _compute_costs(masks: MaskFactors, image: int, target: MaskTargets) -> tuple[Tensor, Tensor]:
    """Compute them in full precision."""
    points, logits = target.points.matching, []
    placed = place_points(points[None], target.size, masks.size)
    for maps, queries, offsets in zip(masks.maps, masks.queries[:, image], masks.offsets[:, image], strict=True):
        own = maps[image % len(maps)][None]
        (cells,) = sample_points(own, placed)
        logits.append(multiply(at_least_float32(queries), cells.t(), at_least_float32(offsets)))
    x = torch.stack(logits)  # l q p
    count = len(target.masks)
    covered = target.look_up(points.expand(count, -1, -1)).to(x.dtype)  # n p
    entropy = (F.softplus(x).sum(-1, keepdim=True) - x @ covered.t()) / x.shape[-1]
    probabilities = x.sigmoid()
    both = 2 * probabilities @ covered.t()
    dice = 1 - (both + 1) / (probabilities.sum(-1, keepdim=True) + covered.sum(-1) + 1)
    return entropy, dice
