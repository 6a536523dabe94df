"""The contract of what every head decodes: detections of fixed shape, eager and exported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.compose.parts import list_parts
from boxwright.contracts import MaskHead, TaskHead
from boxwright.detector import Detector
from boxwright.structures import Decoded, ImageSize
from head_checks import LIMIT, NUM_CLASSES, MakeTargets, heads_and_masks, predict, shaken, tensors
from part_checks import ONE_OF_EACH_FAMILY, attends, composed, maps, padding, valid_sizes
from random_weights import shake


@heads_and_masks
def test_boxes_are_made_of_float32_under_autocast(name: str, make_targets: MakeTargets) -> None:
    head = shaken(name)
    for targets in (None, make_targets([3, 1], size=LIMIT)):
        with torch.autocast("cpu", torch.bfloat16):
            output = predict(head, targets)
            decoded = head.decode(output)
        assert decoded.boxes.dtype == decoded.scores.dtype == torch.float32
        half = [x.shape for x in tensors(output) if x.dtype == torch.bfloat16]
        assert half, "nothing runs in half precision"
        assert not any(shape[-1] == 4 for shape in half), "boxes, or what they are made of, have half precision"


@heads_and_masks
@pytest.mark.parametrize("with_targets", [False, True])
def test_decoded_detections(name: str, with_targets: bool, make_targets: MakeTargets) -> None:
    head = shaken(name)
    decoded = head.decode(predict(head, make_targets([2, 1], size=LIMIT) if with_targets else None))
    assert isinstance(decoded, Decoded)
    boxes, scores, labels, valid, masks, regions = decoded[:6]
    assert boxes.shape == (*scores.shape, 4)
    assert scores.shape == labels.shape == valid.shape
    assert len(scores) == 2
    assert (boxes.dtype, scores.dtype, labels.dtype, valid.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
        torch.bool,
    )
    assert valid.any()
    for image in range(2):
        best_first = scores[image, valid[image]]
        assert (best_first.diff() <= 0).all()
        assert ((best_first >= 0) & (best_first <= 1)).all()
        # What fills up comes after what is valid.
        assert valid[image, : valid[image].sum()].all()
    assert ((labels >= 0) & (labels < NUM_CLASSES)).all()
    assert (boxes[..., 2:] >= boxes[..., :2])[valid].all()
    assert (masks is not None) == (isinstance(head, MaskHead) and head.mask_region is not None)
    if masks is not None:
        assert masks.shape[:2] == scores.shape
        assert regions is not None
        assert regions.shape == boxes.shape
        assert regions[valid].equal(boxes[valid]) == (head.mask_region == "box")
        assert ((masks >= 0) & (masks <= 1)).all()


@heads_and_masks
def test_the_shape_of_detections_does_not_depend_on_the_images(name: str) -> None:
    head = shaken(name)
    shapes = set()
    for factor in (0.0, 0.01, 1.0, 30.0):
        decoded = head.decode(predict(head, features={key: x * factor for key, x in maps().items()}))
        shapes.add(tuple(x.shape for x in tensors(decoded)))
    assert len(shapes) == 1


@heads_and_masks
def test_targets_do_not_change_detections(name: str, make_targets: MakeTargets) -> None:
    head = shaken(name)
    alone, trained = head.decode(predict(head)), head.decode(predict(head, make_targets([3, 1], size=LIMIT)))
    for one, other in zip(tensors(alone), tensors(trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-5)


@heads_and_masks
def test_loss_and_detections_come_from_one_forward(name: str, make_targets: MakeTargets) -> None:
    head, targets = shaken(name), make_targets([3, 1], size=LIMIT)
    output = predict(head, targets)
    before = [x.detach().clone() for x in tensors(output)]
    decoded = head.decode(output)
    total = torch.stack(list(head.loss(output, targets).values())).sum()
    again = head.decode(output)
    total.backward()
    for one, other in zip((*before, *tensors(decoded)), (*tensors(output), *tensors(again)), strict=True):
        assert torch.equal(one, other)


@heads_and_masks
def test_sizes_are_read_off_the_padding_where_they_are_not_passed(name: str) -> None:
    head = shaken(name)
    passed, read = predict(head), head(maps(), padding())
    for one, other in zip(tensors(head.decode(passed)), tensors(head.decode(read)), strict=True):
        assert torch.equal(one, other)


@heads_and_masks
def test_an_image_whose_predictions_are_not_numbers_has_no_scores(name: str) -> None:
    """A model that has diverged shows it in the scores of ``decode``, in those of the images that it is about."""
    head, features = shaken(name), maps()
    for x in features.values():
        x[1] = torch.nan
    scores = head.decode(predict(head, features=features)).scores
    assert scores[1].isnan().all()
    assert scores[0].isfinite().all()


@heads_and_masks
def test_a_detector_that_has_diverged_is_an_error(name: str) -> None:
    detector = composed("resnet", ["fpn"], name, NUM_CLASSES).eval()
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter.fill_(torch.nan)
        output = detector(torch.rand(2, 3, 64, 64))
    assert detector.decode(output).scores.isnan().all()
    with pytest.raises(ValueError, match="has diverged"):
        detector.postprocess(output, [ImageSize(64, 64, 64, 64)] * 2)


@heads_and_masks
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    head, features = shaken(name), maps()
    together = head.decode(predict(head, features=features))
    alone = head.decode(head({key: x[1:] for key, x in features.items()}, padding()[1:], None, valid_sizes()[1:]))
    assert torch.equal(together.valid[1:], alone.valid)
    torch.testing.assert_close(together.scores[1:], alone.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.boxes[1:], alone.boxes, rtol=0, atol=1e-3)
    if alone.masks is not None and together.masks is not None:
        torch.testing.assert_close(together.masks[1:], alone.masks, rtol=0, atol=1e-5)


@heads_and_masks
def test_mask_changes_something_where_a_part_attends(name: str) -> None:
    head = shaken(name)
    masked, without = predict(head), head(maps(), None, None, valid_sizes())
    pairs = zip(tensors(masked), tensors(without), strict=True)
    alike = [(one.double(), other.double()) for one, other in pairs if one.shape == other.shape and one.numel()]
    differences = [(one - other).abs().max() for one, other in alike]
    # A head of another task averages over an image, which padding is no part of.
    looks_at_all = attends(head) or isinstance(head, TaskHead)
    assert max(differences) > 1e-3 if looks_at_all else max(differences) == 0


class Decoding(nn.Module):
    """Images to detections of fixed shape."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Decoded:
        return self.detector.decode(self.detector(images))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name",
    [
        name if name in ONE_OF_EACH_FAMILY else pytest.param(name, marks=pytest.mark.slow)
        for name in list_parts("heads")
    ],
)
def test_the_folded_detector_exports_down_to_detections_with_a_free_batch_height_and_width(name: str) -> None:
    detector = composed("resnet_vd", ["hybrid_encoder"], name, NUM_CLASSES)
    shake(detector)
    model = Decoding(detector.fold()).eval()

    def make_images(count: int, height: int, width: int) -> Tensor:
        return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))

    free = {0: torch.export.Dim("batch", min=1, max=64)}
    free |= {axis: 32 * torch.export.Dim(side, min=2, max=8) for axis, side in ((2, "height"), (3, "width"))}
    program = torch.export.export(model, (make_images(2, 96, 64),), dynamic_shapes=(free,)).module()
    for size in ((1, 64, 64), (2, 96, 64), (5, 64, 128)):
        with torch.no_grad():
            exported, eager = program(make_images(*size)), model(make_images(*size))
        assert eager.valid.any()
        for ours, expected in zip(tensors(exported), tensors(eager), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
        assert exported.scores.shape[0] == size[0]
