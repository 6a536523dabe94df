"""From the scores and boxes of query decoders to detections."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from boxwright.detections import Detections
from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, resized
from boxwright.structures import ImageSize


def sigmoid_detections(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    image_sizes: Sequence[ImageSize],
    max_detections: int,
) -> list[Detections]:
    """The best (query, class) pairs of each image, in pixels of the original image; ties keep their order.

    Args:
        logits: of each class on its own.
        boxes_cxcywh_norm: center boxes relative to the image's content.
        image_sizes: one per image.
        max_detections: most pairs of an image; 100 in Deformable DETR, 300 in RT-DETR.

    Source: ``PostProcess`` of fundamentalvision/Deformable-DETR 11169a6; RTDETRPostProcessor of lyuwenyu/RT-DETR
    068dfde. Differs in the order of ties, which there is left to top k.
    """
    num_classes = logits.shape[-1]
    # A stable sort, where top k leaves the order of ties to chance.
    scores, places = at_least_float32(logits).sigmoid().flatten(1).sort(descending=True, stable=True)
    scores, places = scores[:, :max_detections], places[:, :max_detections]
    return _detections(scores, places // num_classes, places % num_classes, boxes_cxcywh_norm, image_sizes)


def softmax_detections(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    image_sizes: Sequence[ImageSize],
) -> list[Detections]:
    """Each query's best class, in pixels of the original image, best first; ties keep their order.

    Args:
        logits: (b, q, classes + 1), of the classes and, last, of "no object", which is never the answer.
        boxes_cxcywh_norm: center boxes relative to the image's content.
        image_sizes: one per image.

    Source: ``PostProcess`` of facebookresearch/detr 29901c5, which leaves the detections unsorted.
    """
    scores, labels = at_least_float32(logits).softmax(-1)[..., :-1].max(-1)
    scores, queries = scores.sort(descending=True, stable=True)
    return _detections(scores, queries, labels.gather(1, queries), boxes_cxcywh_norm, image_sizes)


def _detections(
    scores: Float[Tensor, "b n"],
    queries: Int[Tensor, "b n"],
    labels: Int[Tensor, "b n"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    image_sizes: Sequence[ImageSize],
) -> list[Detections]:
    corners = cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm))
    found = []
    for image, size in enumerate(image_sizes):
        boxes = resized(corners[image, queries[image]], (1, 1), (size.height, size.width))
        found.append(Detections(boxes, scores[image], labels[image]))
    return found
