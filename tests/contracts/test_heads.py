"""The contract of every head: a part is asked for nothing but what ``boxwright.contracts`` declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boxwright.compose.parts import find_part, list_parts
from boxwright.contracts import AssigningHead, LimitedHead, MaskHead, MatchCountingHead, TaskHead
from boxwright.detector import Detector
from boxwright.structures import Decoded, Features, ImageSize, LossTotals, Targets
from part_checks import (
    ONE_OF_EACH_FAMILY,
    SIZE,
    SPEC,
    VALID,
    attends,
    build,
    check_constructor,
    check_docstring,
    check_equal_seeds_give_equal_weights,
    check_name,
    check_state_round_trip,
    composed,
    maps,
    padding,
    valid_sizes,
)
from random_weights import shake

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 5
"""Four numbers in a row are a box."""
LIMIT = (min(height for height, _ in VALID), min(width for _, width in VALID))
"""(height, width) that objects lie in: within every image."""

heads = pytest.mark.parametrize("name", list_parts("heads"))

MASKS = "rtdetr+masks"
heads_and_masks = pytest.mark.parametrize(
    "name",
    [
        *list_parts("heads"),
        MASKS,
        *(
            pytest.param(f"{name}+masks", marks=pytest.mark.slow)
            for name in ("deformable_detr", "detr", "dfine", "dino")
        ),
    ],
)
"""With options that change what a head predicts."""


def heads_with(trait: type) -> pytest.MarkDecorator:
    """Those that have what a protocol asks for."""
    names = [name for name in list_parts("heads") if issubclass(find_part("heads", name), trait)]
    assert names
    return pytest.mark.parametrize("name", names)


def predict(head: Any, targets: list[Targets] | None = None, *, features: Features | None = None) -> Any:
    """Run a head on padded inputs of images of other sizes."""
    features = maps() if features is None else features
    batch = len(next(iter(features.values())))
    return head(features, padding(batch), targets, valid_sizes(batch))


def loss_of(head: Any, targets: list[Targets], totals: LossTotals | None = None) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(head.loss(predict(head, targets), targets, totals).values())).sum()


def tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def shaken(name: str, **options: Any) -> Any:
    """A head with weights that are far from special, in evaluation mode."""
    head = build("heads", name, SPEC, NUM_CLASSES, **options).eval()
    shake(head)
    return head


@heads
def test_name(name: str) -> None:
    check_name("heads", name)


@heads
def test_constructor(name: str) -> None:
    check_constructor(find_part("heads", name), ("in_spec", "num_classes"))


@heads
def test_docstring(name: str) -> None:
    check_docstring(find_part("heads", name), ("in_spec", "num_classes"))


@heads_and_masks
def test_output_is_the_same_in_training_and_in_evaluation(name: str, make_targets: MakeTargets) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES)
    for targets in (None, make_targets([2, 1], size=LIMIT)):
        training, evaluation = predict(head.train(), targets), predict(head.eval(), targets)
        assert pytree.tree_structure(training) == pytree.tree_structure(evaluation)
        assert [x.shape for x in tensors(training)] == [x.shape for x in tensors(evaluation)]


@heads_and_masks
@pytest.mark.parametrize("counts", [[3, 1], [2, 0], [0, 0]], ids=str)
def test_losses_are_finite_scalars(name: str, counts: list[int], make_targets: MakeTargets) -> None:
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets(counts, size=LIMIT)
    losses = head.loss(predict(head, targets), targets)
    assert losses
    for term, value in losses.items():
        assert value.shape == (), term
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert value >= 0
    total = sum(losses.values())
    assert isinstance(total, Tensor)
    # An image without objects is all background to a detector; to a classifier it says nothing.
    assert total > 0 or (isinstance(head, TaskHead) and head.task == "classification" and not sum(counts))


@heads_and_masks
@pytest.mark.parametrize("counts", [[3, 1], [0, 0]], ids=str)
def test_every_parameter_is_trained_whatever_the_batch(name: str, counts: list[int], make_targets: MakeTargets) -> None:
    # One process of several waits for ever for a gradient that never comes.
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets(counts, size=LIMIT)
    loss_of(head, targets).backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is never reached"
        assert parameter.grad.isfinite().all(), parameter_name


@heads_and_masks
def test_losses_do_not_depend_on_how_images_are_spread(name: str, make_targets: MakeTargets) -> None:
    """Nor do regions and random queries, which are drawn anew for every part."""
    head = build("heads", name, SPEC, NUM_CLASSES).eval()
    features, targets = maps(batch=3), make_targets([3, 0, 2], size=LIMIT)
    targets = [one._replace(seed=seed, most_objects=3) for seed, one in enumerate(targets)]

    def predict_part(part: slice) -> Any:
        chosen = {key: x[part] for key, x in features.items()}
        return head(chosen, padding(3)[part], targets[part], valid_sizes(3)[part])

    def total(part: slice, totals: LossTotals | None) -> Tensor:
        return torch.stack(list(head.loss(predict_part(part), targets[part], totals).values())).sum()

    matches = head.count_matches(targets, SIZE) if isinstance(head, MatchCountingHead) else None
    if isinstance(head, AssigningHead):
        matches = head.count_assigned(head.assign(predict_part(slice(3)), targets))
    step = LossTotals.of(targets)._replace(matches=matches)
    whole, parts = total(slice(3), None), (slice(2), slice(2, 3))
    accumulated = torch.stack([total(part, step) for part in parts]).sum()
    averaged = torch.stack([total(part, step._replace(processes=2)) for part in parts]).mean()
    torch.testing.assert_close(accumulated, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(averaged, whole, rtol=1e-5, atol=0)


@heads_with(MatchCountingHead)
def test_matches_are_counted_on_maps_that_are_rounded_up(name: str, make_targets: MakeTargets) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES).eval()
    assert isinstance(head, MatchCountingHead)
    # An object around the last column of c3, which maps that are rounded down do not have.
    last = torch.tensor([[116.0, 28, 148, 60]])
    targets = [one._replace(boxes=torch.cat((one.boxes[:-1], last))) for one in make_targets([3, 2], size=SIZE)]
    output = head(maps(), None, targets)
    counted = LossTotals.of(targets)._replace(matches=head.count_matches(targets, SIZE))
    assert counted.matches is not None
    assert counted.matches > 0
    assert head.loss(output, targets, counted) == head.loss(output, targets)
    assert counted.matches != head.count_matches(targets, (SIZE[0] - SIZE[0] % 8, SIZE[1] - SIZE[1] % 8))


@pytest.mark.parametrize("name", [*list_parts("heads"), MASKS])
def test_boxes_and_losses_are_float32_under_autocast(name: str, make_targets: MakeTargets) -> None:
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets([3, 1], size=LIMIT)
    shake(head)

    def losses(*, enabled: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)  # Of what is drawn: regions to train on, random queries.
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return dict(head.loss(predict(head, targets), targets))

    exact, half = losses(enabled=False), losses(enabled=True)
    assert list(half) == list(exact)
    for term, value in half.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[term].item(), rel=0.1, abs=0.01), term


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


@heads_with(LimitedHead)
def test_limits_are_options_and_can_be_raised(name: str) -> None:
    head = shaken(name)
    assert isinstance(head, LimitedHead)
    limits = head.object_limits()
    parameters = inspect.signature(find_part("heads", name)).parameters
    for limit in limits:
        group, _, field = limit.option.partition(".")
        default = parameters[group].default
        assert not field or hasattr(reduce(getattr, field.split(".")[:-1], default), field.split(".")[-1]), limit
        assert limit.limit >= 1
    head.raise_limits(5000)
    raised = {limit.option: limit.limit for limit in head.object_limits()}
    assert list(raised) == [limit.option for limit in limits]
    assert all(raised[limit.option] >= limit.limit for limit in limits)
    assert head.decode(predict(head)).scores.shape[1] > 0


@heads_and_masks
def test_state_round_trip(name: str) -> None:
    def outputs(head: nn.Module) -> list[Tensor]:
        return tensors(predict(head))

    one, other = (build("heads", name, SPEC, NUM_CLASSES, seed=seed) for seed in (0, 1))
    check_state_round_trip(one, other, outputs)


@heads_and_masks
def test_seeds(name: str) -> None:
    one, same, other = (build("heads", name, SPEC, NUM_CLASSES, seed=seed) for seed in (0, 0, 1))
    check_equal_seeds_give_equal_weights(one, same, other)


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
