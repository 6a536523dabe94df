"""What every head keeps to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from part_checks import (
    SPEC,
    build,
    check_constructor,
    check_docstring,
    check_equal_seeds_give_equal_weights,
    check_name,
    check_state_round_trip,
    composed,
    maps,
)
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boxwright.compose.parts import find_part, list_parts
from boxwright.contracts import MatchCountingHead
from boxwright.detections import Detections
from boxwright.structures import ImageSize, LossTotals, Targets
from random_weights import shake

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 4
SCORES = {"logits", "noised_logits", "selected_logits", "centerness", "masks"}
"""Fields of outputs that may have half precision: no boxes, nor what boxes are made of."""

heads = pytest.mark.parametrize("name", list_parts("heads"))


def tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def in_half_precision(output: object) -> set[str]:
    """Names of the fields whose numbers are not of 32 bits."""
    paths = pytree.tree_flatten_with_path(output)[0]
    half = [path for path, x in paths if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)]
    return {[key.name for key in path if isinstance(key, pytree.GetAttrKey)][-1] for path in half}


@heads
def test_name(name: str) -> None:
    check_name("heads", name)


@heads
def test_constructor(name: str) -> None:
    check_constructor(find_part("heads", name), ("in_spec", "num_classes"))


@heads
def test_docstring(name: str) -> None:
    check_docstring(find_part("heads", name), ("in_spec", "num_classes"))


@heads
def test_output_is_the_same_in_training_and_in_evaluation(name: str, make_targets: MakeTargets) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES)
    for targets in (None, make_targets([2, 1])):
        training, evaluation = head.train()(maps(64, 64), None, targets), head.eval()(maps(64, 64), None, targets)
        assert pytree.tree_structure(training) == pytree.tree_structure(evaluation)
        assert [x.shape for x in tensors(training)] == [x.shape for x in tensors(evaluation)]


@heads
@pytest.mark.parametrize("counts", [[3, 1], [2, 0], [0, 0]], ids=str)
def test_losses_are_finite_scalars(name: str, counts: list[int], make_targets: MakeTargets) -> None:
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets(counts)
    losses = head.loss(head(maps(64, 64), None, targets), targets)
    assert losses
    for term, value in losses.items():
        assert value.shape == (), term
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert value >= 0
    total = sum(losses.values())
    assert isinstance(total, Tensor)
    # An image without objects is all background to a detector; to a classifier it says nothing.
    assert total > 0 or (getattr(head, "task", "detection") == "classification" and not sum(counts))


@heads
@pytest.mark.parametrize("counts", [[3, 1], [0, 0]], ids=str)
def test_every_parameter_is_trained_whatever_the_batch(name: str, counts: list[int], make_targets: MakeTargets) -> None:
    # One process of several waits for ever for a gradient that never comes.
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets(counts)
    sum(head.loss(head(maps(64, 64), None, targets), targets).values()).backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is never reached"
        assert parameter.grad.isfinite().all(), parameter_name


@heads
def test_losses_do_not_depend_on_how_images_are_spread(name: str, make_targets: MakeTargets) -> None:
    # Training without random queries, which are drawn anew for every part.
    head = build("heads", name, SPEC, NUM_CLASSES, **{"num_denoising": 0} if name == "rtdetr" else {}).eval()
    features, targets = maps(64, 64, batch=3), make_targets([3, 0, 1])

    def total(part: slice, totals: LossTotals | None) -> Tensor:
        chosen = {key: x[part] for key, x in features.items()}
        output = head(chosen, None, targets[part])
        return torch.stack(list(head.loss(output, targets[part], totals).values())).sum()

    step = LossTotals(
        4, 3, matches=head.count_matches(targets, (64, 64)) if isinstance(head, MatchCountingHead) else None
    )
    whole, parts = total(slice(3), None), (slice(2), slice(2, 3))
    accumulated = sum(total(part, step) for part in parts)
    averaged = sum(total(part, step._replace(processes=2)) for part in parts) / 2
    torch.testing.assert_close(accumulated, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(averaged, whole, rtol=1e-5, atol=0)


@heads
def test_boxes_and_losses_are_float32_under_autocast(name: str, make_targets: MakeTargets) -> None:
    head, targets = build("heads", name, SPEC, NUM_CLASSES).train(), make_targets([3, 1])
    shake(head)

    def losses(*, enabled: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)  # Of what is drawn: regions to train on, random queries.
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = head(maps(64, 64), None, targets)
            assert in_half_precision(output) <= SCORES if enabled else not in_half_precision(output)
            return head.loss(output, targets)

    exact, half = losses(enabled=False), losses(enabled=True)
    assert list(half) == list(exact)
    for term, value in half.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[term].item(), rel=0.1, abs=0.01), term
    with torch.autocast("cpu", torch.bfloat16):
        output = head.eval()(maps(64, 64))
        detections = head.postprocess(output, [ImageSize(64, 64, 64, 64)] * 2)
    assert "logits" in in_half_precision(output) <= SCORES
    assert output.prediction()[1].dtype == torch.float32
    for found in detections:
        assert found.boxes.dtype == found.scores.dtype == torch.float32


@heads
def test_detections(name: str) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES).eval()
    sizes = [ImageSize(480, 640, 64, 64), ImageSize(33, 21, 64, 64)]
    detections = head.postprocess(head(maps(64, 64)), sizes)
    assert len(detections) == 2
    for found, size in zip(detections, sizes, strict=True):
        assert isinstance(found, Detections)
        assert len(found.boxes) == len(found.scores) == len(found.labels)
        assert found.boxes.dtype == found.scores.dtype == torch.float32
        assert found.labels.dtype == torch.int64
        assert (found.scores.diff() <= 0).all()
        assert found.scores.min() >= 0
        assert found.scores.max() <= 1
        assert 0 <= found.labels.min() <= found.labels.max() < NUM_CLASSES
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (found.boxes[:, 0::2] <= size.width).all()
        assert (found.boxes[:, 1::2] <= size.height).all()


@heads
def test_what_is_not_a_number_is_not_hidden(name: str) -> None:
    """A model that has diverged says so, or shows it in its scores, and does not just find nothing."""
    head = build("heads", name, SPEC, NUM_CLASSES).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(torch.nan)
    output, scores, said = head(maps(64, 64)), torch.zeros(0), ""
    try:
        scores = head.postprocess(output, [ImageSize(64, 64, 64, 64)] * 2)[0].scores
    except ValueError as error:
        said = str(error)
    assert "has diverged" in said or scores.isnan().any()


@heads
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES).eval()
    features = maps(64, 96)
    size = ImageSize(64, 96, 64, 96)
    together = head.postprocess(head(features), [size] * 2)[1]
    (alone,) = head.postprocess(head({key: x[1:] for key, x in features.items()}), [size])
    torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.boxes, alone.boxes, rtol=0, atol=1e-3)


@heads
def test_state_round_trip(name: str) -> None:
    def outputs(head: nn.Module) -> list[Tensor]:
        return tensors(head(maps(64, 64)))

    one, other = (build("heads", name, SPEC, NUM_CLASSES, seed=seed) for seed in (0, 1))
    check_state_round_trip(one, other, outputs)


@heads
def test_seeds(name: str) -> None:
    one, same, other = (build("heads", name, SPEC, NUM_CLASSES, seed=seed) for seed in (0, 0, 1))
    check_equal_seeds_give_equal_weights(one, same, other)


@pytest.mark.usefixtures("unchecked")
@heads
def test_the_fused_detector_exports_with_a_free_batch_height_and_width(name: str) -> None:
    detector = composed("resnet_vd", ["hybrid_encoder"], name, NUM_CLASSES).fold()

    def make_images(count: int, height: int, width: int) -> Tensor:
        return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))

    free = {0: torch.export.Dim("batch", min=1, max=64)}
    free |= {axis: 32 * torch.export.Dim(side, min=2, max=8) for axis, side in ((2, "height"), (3, "width"))}
    program = torch.export.export(detector, (make_images(2, 96, 64),), dynamic_shapes=(free,)).module()
    for size in ((1, 64, 64), (2, 96, 64), (5, 64, 128)):
        with torch.no_grad():
            exported, eager = program(make_images(*size)), detector(make_images(*size))
        for ours, expected in zip(tensors(exported), tensors(eager), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        assert exported.prediction()[0].shape[0] == size[0]
