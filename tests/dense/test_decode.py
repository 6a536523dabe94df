"""From predictions of dense heads to detections."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boxwright.dense.decode import decode_dense, stable_top_k
from boxwright.dense.options import DenseDetectionOptions
from boxwright.dense.output import DenseOutput
from boxwright.ops.box_deltas import decode_deltas
from boxwright.structures import Decoded


def apart(count: int) -> Tensor:
    """Boxes that do not touch."""
    left = 8.0 * torch.arange(count)
    return torch.stack((left, left * 0, left + 5, left * 0 + 5), 1)


def output_of(scores: list[Tensor], boxes: list[Tensor], sizes: list[list[float]] | None = None) -> DenseOutput:
    """An output whose boxes are its anchors."""
    batch = len(scores[0])
    return DenseOutput(
        tuple(x.logit() for x in scores),
        tuple(torch.zeros(batch, len(x), 4) for x in boxes),
        tuple(boxes),
        torch.tensor(sizes or [[1000.0, 100_000.0]]),
    )


def decode(
    scores: list[Tensor],
    boxes: list[Tensor],
    sizes: list[list[float]] | None = None,
    *,
    per_level: bool = True,
    **options: float,
) -> Decoded:
    """Detections of such an output."""
    chosen = DenseDetectionOptions(**options)  # type: ignore[arg-type]
    return decode_dense(output_of(scores, boxes, sizes), decode_deltas, chosen, per_level=per_level)


def valid_scores(decoded: Decoded, image: int = 0) -> Tensor:
    return decoded.scores[image, decoded.valid[image]]


def test_the_best_pairs_of_all_levels_in_pixels_of_the_network_input() -> None:
    scores = [torch.tensor([[[0.3, 0.0], [0.01, 0.9]]]), torch.tensor([[[0.2, 0.6]]])]
    boxes = [torch.tensor([[0.0, 0, 10, 20], [20, 20, 40, 30]]), torch.tensor([[50.0, 50, 90, 120]])]
    decoded = decode(scores, boxes, [[100.0, 80.0]])
    assert decoded.valid.tolist() == [[True] * 4 + [False] * 2]
    assert decoded.labels[0, :4].tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(decoded.scores[0, :4], torch.tensor([0.9, 0.6, 0.3, 0.2]))
    expected = [[20.0, 20, 40, 30], [50, 50, 80, 100], [0, 0, 10, 20], [50, 50, 80, 100]]
    torch.testing.assert_close(decoded.boxes[0, :4], torch.tensor(expected))


def test_scores_have_to_exceed_the_threshold() -> None:
    # 0.5 is the sigmoid of 0 exactly.
    scores = [torch.tensor([[[0.5], [0.51], [0.49]]])]
    torch.testing.assert_close(valid_scores(decode(scores, [apart(3)], score_threshold=0.5)), torch.tensor([0.51]))
    nothing = decode(scores, [apart(3)], score_threshold=0.6)
    assert nothing.boxes.shape == (1, 3, 4)
    assert not nothing.valid.any()


def test_boxes_without_an_area_on_their_image_stay_where_the_option_says_so() -> None:
    """Beyond the image's right edge, and above it."""
    boxes = [torch.tensor([[10.0, 10, 20, 20], [90, 10, 110, 20], [100, 10, 120, 20], [30, -20, 40, 0]])]
    scores, sizes = [torch.tensor([[[0.9], [0.8], [0.7], [0.6]]])], [[60.0, 100.0]]
    kept = valid_scores(decode(scores, boxes, sizes, keep_empty=True, nms_threshold=1.0))
    torch.testing.assert_close(kept, torch.tensor([0.9, 0.8, 0.7, 0.6]))
    kept = valid_scores(decode(scores, boxes, sizes, keep_empty=False, nms_threshold=1.0))
    torch.testing.assert_close(kept, torch.tensor([0.9, 0.8]))


def test_so_many_of_each_level_and_of_an_image() -> None:
    scores = [torch.tensor([[[0.5], [0.7], [0.6]]]), torch.tensor([[[0.2], [0.1], [0.3]]])]
    boxes = [apart(3), apart(3) + 50]
    actual = valid_scores(decode(scores, boxes, pre_nms_top_k=2))
    torch.testing.assert_close(actual, torch.tensor([0.7, 0.6, 0.3, 0.2]))
    three = decode(scores, boxes, pre_nms_top_k=2, max_detections=3)
    assert three.scores.shape == (1, 3)
    torch.testing.assert_close(valid_scores(three), torch.tensor([0.7, 0.6, 0.3]))
    together = valid_scores(decode(scores, boxes, pre_nms_top_k=2, per_level=False))
    torch.testing.assert_close(together, torch.tensor([0.7, 0.6]))


def test_of_equal_scores_the_first_come_first() -> None:
    # So many that torch sorts them in another order unless told not to, and torchvision class by class.
    scores = torch.full((1, 3000, 1), 0.5)
    scores[0, ::2] = 0.6
    left = torch.arange(3000.0)
    boxes = torch.stack((left, left * 0, left + 0.5, left * 0 + 0.5), 1)
    decoded = decode([scores], [boxes], pre_nms_top_k=1600, max_detections=1600)
    expected = torch.cat((torch.arange(0, 3000, 2), torch.arange(1, 200, 2))).float()
    torch.testing.assert_close(decoded.boxes[0, :, 0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 7, 40, 1000])
def test_pairs_are_those_of_sorting_them_all(count: int) -> None:
    # Few values, so that most scores have equals, within an anchor too.
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(1, 12, (3, 50, 6), generator=generator) / 12
    decoded = decode([scores], [apart(50)], pre_nms_top_k=count, max_detections=count, nms_threshold=1.0)
    expected, pairs = scores.logit().sigmoid().flatten(1).sort(descending=True, stable=True)
    assert torch.equal(decoded.scores, expected[:, :count])
    assert torch.equal(decoded.labels, pairs[:, :count] % 6)
    assert torch.equal(decoded.boxes[..., 0], 8.0 * (pairs[:, :count] // 6))


@pytest.mark.parametrize("count", [1, 7, 50, 1000])
def test_anchors_with_their_best_class_alone(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # No two classes of an anchor are equal, some anchors are.
    scores = (torch.stack([torch.randperm(6, generator=generator) for _ in range(150)]).view(3, 50, 6) + 1.0) / 8
    scores[:, ::3] *= 0.5
    decoded = decode(
        [scores], [apart(50)], pre_nms_top_k=count, max_detections=count, nms_threshold=1.0, best_class=True
    )
    best, labels = scores.logit().sigmoid().max(-1)
    expected, anchors = best.sort(descending=True, stable=True)
    assert torch.equal(decoded.scores, expected[:, :count])
    assert torch.equal(decoded.labels, labels.gather(1, anchors)[:, :count])
    assert torch.equal(decoded.boxes[..., 0], 8.0 * anchors[:, :count])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stable_top_k(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.5, 0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=dtype)
    assert stable_top_k(scores, 4).tolist() == [[3, 0, 2, 1], [0, 1, 2, 3]]
    assert stable_top_k(scores, 9).shape == (2, 5)
    many = torch.randint(0, 50, (2, 5000), generator=torch.Generator().manual_seed(0)).to(dtype) / 50
    assert torch.equal(stable_top_k(many, 600), many.sort(dim=1, descending=True, stable=True).indices[:, :600])


def test_better_ones_suppress_others_of_their_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4]])  # overlaps 0.8, 0.4, 0.5
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.7], [0.6, 0.0]]])
    decoded = decode([scores], [boxes], nms_threshold=0.5)
    assert decoded.labels[decoded.valid].tolist() == [0, 1, 0]
    torch.testing.assert_close(valid_scores(decoded), torch.tensor([0.9, 0.7, 0.6]))
    torch.testing.assert_close(valid_scores(decode([scores], [boxes], nms_threshold=0.3)), torch.tensor([0.9, 0.7]))


def test_every_image_is_cut_to_its_own_size_before_boxes_are_compared() -> None:
    boxes = torch.tensor([[-10.0, -10, 60, 200], [-10.0, -10, 60, 38]])
    scores = torch.tensor([[[0.5], [0.4]], [[0.4], [0.5]]])
    decoded = decode([scores], [boxes], [[100.0, 100.0], [40.0, 30.0]])
    assert decoded.valid.tolist() == [[True, True], [True, False]]
    assert decoded.boxes[0].tolist() == [[0, 0, 60, 100], [0, 0, 60, 38]]
    assert decoded.boxes[1, 0].tolist() == [0, 0, 30, 38]


def test_lowered_scores_instead_of_suppression() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10]])
    scores = torch.tensor([[[0.9], [0.8], [0.3]]])
    decoded = decode([scores], [boxes], soft_nms=True, max_detections=3)
    expected = torch.tensor([0.9, 0.3, 0.8 * torch.exp(torch.tensor(-2.0))])
    torch.testing.assert_close(valid_scores(decoded), expected)


@pytest.mark.parametrize("where", ["logits", "offsets"])
def test_an_image_with_something_that_is_not_a_number_has_no_scores(where: str) -> None:
    output = output_of([torch.tensor([[[0.9], [0.1]], [[0.8], [0.2]]])], [apart(2)])
    getattr(output, where)[0][1, 1] = torch.nan
    scores = decode_dense(output, decode_deltas, DenseDetectionOptions(pre_nms_top_k=1), per_level=True).scores
    assert scores.isnan().tolist() == [[False], [True]]


def test_half_precision_scores() -> None:
    output = output_of([torch.tensor([[[0.5], [0.25]]])], [apart(2)])
    output = output._replace(logits=tuple(x.bfloat16() for x in output.logits))
    decoded = decode_dense(output, decode_deltas, DenseDetectionOptions(), per_level=True)
    assert decoded.scores.dtype == decoded.boxes.dtype == torch.float32
    assert decoded.scores[0, 0] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pre_nms_top_k": 0}, "pre_nms_top_k is at least 1, not 0"),
        ({"max_detections": 0}, "max_detections is at least 1, not 0"),
        ({"score_threshold": 2.0}, r"score_threshold is in \[0, 1\], not 2.0"),
        ({"nms_threshold": -0.1}, r"nms_threshold is in \[0, 1\], not -0.1"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseDetectionOptions(**options)  # type: ignore[arg-type]
