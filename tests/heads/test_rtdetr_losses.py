"""RT-DETR's loss terms, with numbers for known mistakes of other implementations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rtdetr_head import NO_DENOISING, gradients, maps, small_head, terms
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from boxwright.detector import Detector
from boxwright.queries import DenoisingOptions, HungarianMatcher, QueryLossWeights, normalize_targets
from boxwright.structures import LossTotals, Targets

MakeDetector = Callable[..., Detector]
MakeTargets = Callable[..., list[Targets]]


def test_terms_are_one_per_layer_the_encoder_and_denoising(make_targets: MakeTargets) -> None:
    own = [f"{term}{suffix}" for term in ("varifocal", "l1", "giou") for suffix in ("_0", "_1", "", "_encoder")]
    noised = [f"{term}_denoising_{i}" for term in ("varifocal", "l1", "giou") for i in range(3)]
    assert sorted(terms(small_head(), make_targets([2, 1]))) == sorted(own + noised)
    assert sorted(terms(small_head(denoising=NO_DENOISING), make_targets([2, 1]))) == sorted(own)


def test_denoising_changes_no_other_term(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    on, off = terms(small_head(), targets), terms(small_head(denoising=NO_DENOISING), targets)
    for name, value in off.items():
        assert value.item() > 0
        torch.testing.assert_close(on[name], value, rtol=1e-5, atol=1e-6)


def test_main_loss_is_over_the_matching_queries_only(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([3, 1])
    output = head(maps(), None, targets)
    assert output.logits.shape[:3] == (3, 2, 12)
    assert output.selected_logits.shape[:2] == (2, 12)
    assert output.noised_logits.shape[:3] == (3, 2, 2 * 3 * 2)
    before = head.loss(output, targets)
    after = head.loss(output._replace(noised_logits=output.noised_logits + 1), targets)
    for name in before:
        assert (before[name] == after[name]) == (not name.startswith("varifocal_denoising"))


def test_denoising_terms_are_divided_by_the_groups_too(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([3, 1])
    output = head(maps(), None, targets)
    assert output.denoising is not None
    assert output.denoising.num_groups == 2
    boxes = torch.cat([t.boxes_cxcywh_norm for t in normalize_targets(targets)])
    pairs = output.denoising.matches
    noised = output.noised_boxes_cxcywh_norm[1, pairs.image, pairs.query]
    expected = 5 * (noised - boxes[pairs.object]).abs().sum() / (4 * 2)
    torch.testing.assert_close(head.loss(output, targets)["l1_denoising_1"], expected, rtol=1e-5, atol=0)


def test_a_batch_without_any_object_trains_every_parameter(make_targets: MakeTargets) -> None:
    head, targets = small_head().train(), make_targets([0, 0])
    loss = sum(terms(head, targets).values())
    assert isinstance(loss, Tensor)
    assert loss.isfinite()
    grads = gradients(head, loss)
    assert set(grads) == {name for name, _ in head.named_parameters()}
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads["classes.2.bias"].abs().sum() > 0


def test_gradient_of_four_images_is_the_sum_of_two_and_two(
    make_detector: MakeDetector, make_targets: MakeTargets
) -> None:
    # Norms in evaluation: their statistics would tie the images of a batch together.
    detector = make_detector(num_denoising=0).double().eval()
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = [t._replace(boxes=t.boxes.double()) for t in make_targets([3, 0, 1, 5])]

    def loss(which: slice, totals: LossTotals | None) -> Tensor:
        output = detector(images[which], None, targets[which])
        total = sum(detector.loss(output, targets[which], totals).values())
        assert isinstance(total, Tensor)
        return total

    whole = gradients(detector, loss(slice(0, 4), None))
    parts = [gradients(detector, loss(which, LossTotals(9, 4))) for which in (slice(0, 2), slice(2, 4))]
    # Two processes, whose gradients are averaged, each divide by the objects per process.
    averaged = [gradients(detector, loss(which, LossTotals(9, 4, processes=2))) for which in (slice(0, 2), slice(2, 4))]
    for name, grad in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], grad, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close((averaged[0][name] + averaged[1][name]) / 2, grad, rtol=1e-8, atol=1e-10)


def test_without_totals_sums_are_divided_by_those_of_the_batch(make_targets: MakeTargets) -> None:
    head, targets = small_head(denoising=NO_DENOISING), make_targets([3, 1])
    output = head(maps(), None, targets)
    by_default, by_one = head.loss(output, targets), head.loss(output, targets, LossTotals(1, 2))
    for name, value in by_default.items():
        torch.testing.assert_close(value * 4, by_one[name], rtol=1e-5, atol=0)
    none = make_targets([0, 0])
    torch.testing.assert_close(
        head.loss(output, none)["varifocal"], head.loss(output, none, LossTotals(1, 2))["varifocal"]
    )


def test_vanilla_selection_trains_the_encoders_scores_on_the_classes_alone(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    aware, vanilla = terms(small_head(), targets), terms(small_head(query_selection="vanilla"), targets)
    assert set(aware) ^ set(vanilla) == {"varifocal_encoder", "focal_encoder"}
    for name in set(aware) & set(vanilla):
        torch.testing.assert_close(aware[name], vanilla[name], rtol=1e-6, atol=0)
    head = small_head()
    output, objects = head(maps(), None, targets), normalize_targets(targets)
    selected = output.selected_logits[None], output.selected_boxes_cxcywh_norm[None]
    target = torch.zeros_like(selected[0])
    matches = HungarianMatcher()(*selected, objects)
    for image, query, index in zip(*(x.tolist() for x in matches[1:]), strict=True):
        target[0, image, query, torch.cat([t.labels for t in objects])[index]] = 1
    expected = sigmoid_focal_loss(selected[0], target, 0.25, 2.0).sum() / 4
    torch.testing.assert_close(vanilla["focal_encoder"], expected, rtol=1e-5, atol=0)


def test_loss_weights_reach_their_terms(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    plain = terms(small_head(), targets)
    weights = QueryLossWeights(class_weight=2.0, l1_weight=15.0, giou_weight=14.0)
    weighted = terms(small_head(loss_weights=weights), targets)
    factors = {"varifocal": 2, "l1": 3, "giou": 7}
    for name, value in plain.items():
        torch.testing.assert_close(weighted[name], factors[name.partition("_")[0]] * value, rtol=1e-5, atol=1e-7)


def test_noise_options_reach_the_denoising_queries(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    options = DenoisingOptions(num_queries=8, label_noise=0.0, box_noise=0.0)
    exact = small_head(denoising=options)(maps(), None, targets).denoising
    assert exact is not None
    objects = normalize_targets(targets)[0]
    assert (exact.labels[0, :3] == objects.labels).all()
    torch.testing.assert_close(exact.boxes_cxcywh_norm[0, :3], objects.boxes_cxcywh_norm, rtol=0, atol=1e-6)
