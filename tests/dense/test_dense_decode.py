"""From scores and offsets to detections."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from boxwright.dense.decode import dense_detections, hard_nms
from boxwright.detections import Detections
from boxwright.ops.box_deltas import decode_deltas
from boxwright.structures import ImageSize

SQUARE = ImageSize(100, 100, 100, 100)


def apart(count: int) -> Tensor:
    """Boxes that do not touch."""
    left = 8.0 * torch.arange(count)
    return torch.stack((left, left * 0, left + 5, left * 0 + 5), 1)


def detect(
    scores: list[Tensor],
    boxes: list[Tensor],
    sizes: list[ImageSize],
    *,
    suppress: float = 0.5,
    threshold: float = 0.05,
    candidates: int = 1000,
    detections: int = 300,
) -> list[Detections]:
    """With boxes that are their anchors."""
    return dense_detections(
        scores,
        [torch.zeros(len(sizes), len(x), 4) for x in boxes],
        boxes,
        sizes,
        decode=decode_deltas,
        suppress=partial(hard_nms, threshold=suppress),
        score_threshold=threshold,
        pre_nms_top_k=candidates,
        max_detections=detections,
    )


def test_the_best_pairs_of_all_levels_in_original_pixels() -> None:
    scores = [torch.tensor([[[0.3, 0.0], [0.01, 0.9]]]), torch.tensor([[[0.2, 0.6]]])]
    boxes = [torch.tensor([[0.0, 0, 10, 20], [20, 20, 40, 30]]), torch.tensor([[50.0, 50, 90, 90]])]
    # The original image was twice as high and half as wide.
    (found,) = detect(scores, boxes, [ImageSize(200, 50, 100, 100)])
    assert found.labels.tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.3, 0.2]))
    expected = [[10.0, 40, 20, 60], [25, 100, 45, 180], [0, 0, 5, 40], [25, 100, 45, 180]]
    torch.testing.assert_close(found.boxes, torch.tensor(expected))


def test_scores_have_to_exceed_the_threshold() -> None:
    scores = [torch.tensor([[[0.25], [0.26], [0.24]]])]
    (found,) = detect(scores, [apart(3)], [SQUARE], threshold=0.25)
    torch.testing.assert_close(found.scores, torch.tensor([0.26]))
    (found,) = detect(scores, [apart(3)], [SQUARE], threshold=0.5)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_so_many_of_each_level_and_of_an_image() -> None:
    scores = [torch.tensor([[[0.5], [0.7], [0.6]]]), torch.tensor([[[0.2], [0.1], [0.3]]])]
    boxes = [apart(3), apart(3) + 50]
    (found,) = detect(scores, boxes, [SQUARE], candidates=2)
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.3, 0.2]))
    (found,) = detect(scores, boxes, [SQUARE], candidates=2, detections=3)
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.3]))


def test_of_equal_scores_the_first_come_first() -> None:
    # So many that torch sorts them in another order unless told not to, and torchvision class by class.
    scores = torch.full((1, 3000, 1), 0.5)
    scores[0, ::2] = 0.6
    left = torch.arange(3000.0)
    boxes = torch.stack((left, left * 0, left + 0.5, left * 0 + 0.5), 1)
    (found,) = detect([scores], [boxes], [ImageSize(1, 3000, 1, 3000)], candidates=1600, detections=1600)
    expected = torch.cat((torch.arange(0, 3000, 2), torch.arange(1, 200, 2))).float()
    torch.testing.assert_close(found.boxes[:, 0], expected, rtol=0, atol=0)


def test_better_ones_suppress_others_of_their_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4]])  # overlaps 0.8, 0.4, 0.5
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.7], [0.6, 0.0]]])
    (found,) = detect([scores], [boxes], [SQUARE], suppress=0.5)
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.6]))
    (found,) = detect([scores], [boxes], [SQUARE], suppress=0.3)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7]))


def test_every_image_is_cut_to_its_own_size() -> None:
    boxes = torch.tensor([[-10.0, -10, 60, 200]])
    scores = torch.tensor([[[0.5]], [[0.4]]])
    one, other = detect([scores], [boxes], [ImageSize(100, 100, 100, 100), ImageSize(10, 20, 50, 40)])
    assert one.boxes.tolist() == [[0, 0, 60, 100]]
    torch.testing.assert_close(other.boxes, torch.tensor([[0.0, 0, 20, 10]]))
    torch.testing.assert_close(other.scores, torch.tensor([0.4]))


def test_half_precision_scores() -> None:
    (found,) = detect([torch.tensor([[[0.5], [0.25]]]).bfloat16()], [apart(2)], [SQUARE])
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    assert found.scores.tolist() == [0.5, 0.25]
