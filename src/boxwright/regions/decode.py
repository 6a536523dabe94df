"""From what is said about regions to the objects of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.detections import Detections
from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, Weights, decode_deltas
from boxwright.ops.boxes import boxes_as_rows, clip_to_sizes, resized
from boxwright.ops.nms import nms_top_k
from boxwright.regions.proposals import Proposals
from boxwright.structures import ImageSize

MIN_SIDE = 1e-2

CANDIDATES_PER_DETECTION = 20
"""Before suppression: a bound on its work, which grows with the square of their number."""


class Found(NamedTuple):
    """As many objects of every image, best first; those that are not ``valid`` only fill up.

    ``boxes`` are corner boxes in pixels of the network's input.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]

    def as_rows(self) -> tuple[Float[Tensor, "r 4"], Int[Tensor, " r"]]:
        """All boxes, image after image, and the image of each."""
        return boxes_as_rows(self.boxes)


def select_detections(
    scores: Float[Tensor, "b r k"],
    boxes: Float[Tensor, "b r #k 4"],
    *,
    score_threshold: float,
    nms_threshold: float,
    pre_nms_top_k: int,
    max_detections: int,
) -> Found:
    """The best (region, class) pairs that no better one of their class covers.

    Nothing depends on how many survive, so that the selection can be exported.

    Args:
        scores: of every class, in [0, 1]; 0 for regions that only fill up.
        boxes: of every class or of all together, cut to the image, in pixels of the network's input.
        score_threshold: pairs that do not exceed it are left out.
        nms_threshold: IoU above which the worse one of two is left out, in [0, 1].
        pre_nms_top_k: the best pairs of an image, before suppression.
        max_detections: most objects of an image.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 3.1. Checked against torchvision 0.29.2's RoIHeads, which has no
    ``pre_nms_top_k``. Differs in filling up.
    """
    num_classes = scores.shape[2]
    # A stable sort, where top k leaves the order of ties to chance.
    best, places = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    best, places = best[:, :pre_nms_top_k], places[:, :pre_nms_top_k]
    labels = places % num_classes
    own = places if boxes.shape[2] > 1 else places // num_classes
    candidates = boxes.flatten(1, 2).gather(1, own[..., None].expand(-1, -1, 4))
    sides = candidates[..., 2:] - candidates[..., :2]
    valid = (best > score_threshold) & (sides >= MIN_SIDE).all(-1)
    order, valid = nms_top_k(candidates, best, labels, valid, threshold=nms_threshold, count=max_detections)
    corners = candidates.gather(1, order[..., None].expand(-1, -1, 4))
    return Found(corners, best.gather(1, order), labels.gather(1, order), valid)


def detect_in_regions(
    scores: Float[Tensor, "b r k"],
    deltas: Float[Tensor, "b r #k 4"],
    proposals: Proposals,
    content: Float[Tensor, "#b 2"],
    *,
    weights: Weights = FAST_RCNN_WEIGHTS,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> Found:
    """The objects of images, from what is said of every region.

    Of an image at most 20 ``max_detections`` (region, class) pairs, the best, enter suppression.

    Args:
        scores: of every class, in [0, 1].
        deltas: deviations from the regions, of every class or of all together.
        proposals: the regions.
        content: (height, width) of each image on the canvas, or of all of them.
        weights: of the deviations, see ``encode_deltas``.
        score_threshold: see ``select_detections``, as the others.
        nms_threshold: likewise.
        max_detections: likewise.
    """
    corners = decode_deltas(deltas, proposals.boxes[:, :, None], weights=weights)
    return select_detections(
        scores * proposals.valid[..., None],
        clip_to_sizes(corners, content),
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        pre_nms_top_k=CANDIDATES_PER_DETECTION * max_detections,
        max_detections=max_detections,
    )


def detected(found: Found | None) -> Found:
    """What a head's output holds where it was made without targets.

    Raises:
        ValueError: it was made with targets.
    """
    if found is None:
        raise ValueError("an output that was made with targets is for the loss; predict without targets")
    return found


def within_images(found: Found, image_sizes: Sequence[ImageSize]) -> Found:
    """The same, with what has no area within its image made unusable.

    Where a canvas is no multiple of the finest stride, the last cells reach beyond it, and so may boxes.

    Args:
        found: in pixels of the network's input.
        image_sizes: one per image.
    """
    ends = found.boxes.new_tensor([[size.input_width, size.input_height] for size in image_sizes])
    return found._replace(valid=found.valid & (ends[:, None] - found.boxes[:, :, :2] >= MIN_SIDE).all(-1))


def in_original_pixels(found: Found, image_sizes: Sequence[ImageSize]) -> list[Detections]:
    """What was found, in pixels of the original images and cut to them.

    Args:
        found: in pixels of the network's input.
        image_sizes: one per image.
    """
    detections = []
    for boxes, scores, labels, valid, size in zip(*found, image_sizes, strict=True):
        corners = resized(boxes[valid], (size.input_height, size.input_width), (size.height, size.width))
        detections.append(Detections(corners, scores[valid], labels[valid]))
    return detections
