"""The contract of every head: a part is asked for nothing but what ``boxwright.contracts`` declares.

Detections and exports: ``test_heads_decoding.py``.
"""

from __future__ import annotations

import inspect
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boxwright.compose.parts import find_part, list_parts
from boxwright.contracts import AssigningHead, LimitedHead, MatchCountingHead, MatchWeighingHead, ProgressHead, TaskHead
from boxwright.structures import LossTotals, Targets
from head_checks import LIMIT, MASKS, NUM_CLASSES, MakeTargets, heads_and_masks, predict, shaken, tensors
from part_checks import (
    SIZE,
    SPEC,
    build,
    check_constructor,
    check_docstring,
    check_equal_seeds_give_equal_weights,
    check_name,
    check_state_round_trip,
    maps,
    padding,
    valid_sizes,
)
from random_weights import shake

heads = pytest.mark.parametrize("name", list_parts("heads"))


def heads_with(trait: type) -> pytest.MarkDecorator:
    """Those that have what a protocol asks for."""
    names = [name for name in list_parts("heads") if issubclass(find_part("heads", name), trait)]
    assert names
    return pytest.mark.parametrize("name", names)


def loss_of(head: Any, targets: list[Targets], totals: LossTotals | None = None) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(head.loss(predict(head, targets), targets, totals).values())).sum()


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


@heads_with(ProgressHead)
def test_class_losses_alone_count_as_many_times_as_training_says(name: str, make_targets: MakeTargets) -> None:
    head = build("heads", name, SPEC, NUM_CLASSES, **{"supervision.early_class_factor": 5.0}).train()
    targets = make_targets([3, 1], size=LIMIT)
    assert isinstance(head, ProgressHead)
    output = predict(head, targets)
    once = head.loss(output, targets)
    head.set_progress(0.5, 500)
    many = head.loss(output, targets)
    head.set_progress(0.5)
    published = head.loss(output, targets)
    class_losses = {"varifocal", "matchability", "iou_aware", "focal"}
    is_class_loss = {term: any(term.startswith(kind) for kind in class_losses) for term in once}
    assert 0 < sum(is_class_loss.values()) < len(once)
    for term, value in once.items():
        factor = 3.0 if is_class_loss[term] else 1.0
        torch.testing.assert_close(many[term], factor * value, msg=term)
        torch.testing.assert_close(published[term], value, msg=term)


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
    weights = head.weigh_matches(targets, SIZE) if isinstance(head, MatchWeighingHead) else None
    step = LossTotals.of(targets)._replace(matches=matches, match_weights=weights)
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
    if isinstance(head, MatchWeighingHead):
        counted = counted._replace(match_weights=head.weigh_matches(targets, SIZE))
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
def test_losses_of_half_precision_are_those_of_the_same_numbers_in_float32(
    name: str, make_targets: MakeTargets
) -> None:
    """In float32 itself other tokens may be selected, and masks compared at other points: those are about ties."""
    head, targets = shaken(name), make_targets([3, 1], size=LIMIT)
    targets = [one._replace(seed=seed) for seed, one in enumerate(targets)]
    with torch.autocast("cpu", torch.bfloat16):
        output = predict(head, targets)
        losses = head.loss(output, targets)
    widened = pytree.tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, output)
    assert any(x.dtype == torch.bfloat16 for x in tensors(output))
    for term, value in head.loss(widened, targets).items():
        assert losses[term].item() == pytest.approx(value.item(), rel=1e-6), term


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
