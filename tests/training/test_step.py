"""One optimizer step: its gradient does not depend on how its images are spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flat_options import train_options
from torch import nn

from boxwright.detector import Detector
from boxwright.queries import QueryLossWeights
from boxwright.structures import Batch, LossTotals, Targets
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import StepResult, train_step

CPU = torch.device("cpu")
MakeDetector = Callable[..., Detector]


def step(detector: Detector, batch: Batch, **options: Any) -> StepResult:
    chosen = train_options(batch_size=len(batch.targets), **{"optimizer__max_grad_norm": 0.0, **options})
    return train_step(detector, detector, make_optimizer(detector, chosen), batch, chosen, CPU)


def gradients(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    """``tolerance`` is a fraction of the largest gradient there is."""
    assert first.keys() == second.keys()
    scale = max(float(gradient.abs().max()) for gradient in first.values())
    assert scale > 1e-3
    for name, gradient in first.items():
        assert float((second[name] - gradient).abs().max()) <= tolerance * scale, name


def in_float64(detector: Detector, batch: Batch) -> tuple[Detector, Batch]:
    """Exact to where it is split, and in the memory format that training has on a CPU.

    In the other one, torch's ``batch_norm`` returns wrong gradients for a single image (2.15).
    """
    return detector.double().to(memory_format=torch.channels_last), batch._replace(images=batch.images.double())


def record_dtype(module: nn.Module) -> list[torch.dtype]:
    """Fills up with the types of what ``module`` puts out."""
    seen: list[torch.dtype] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    return seen


def emptied(batch: Batch, *images: int) -> Batch:
    """The batch with no objects in some of its images."""
    targets = [Targets(t.labels[:0], t.boxes[:0], t.size) if i in images else t for i, t in enumerate(batch.targets)]
    return batch._replace(targets=targets)


def with_padding(batch: Batch) -> Batch:
    """The batch on a wider and lower input, where two images have padding, of sizes that no stride divides."""
    images = batch.images[:, :, :59].contiguous()
    mask = torch.zeros(4, 59, 64, dtype=torch.bool)
    targets = list(batch.targets)
    for i, width in ((1, 50), (2, 43)):
        mask[i, :, width:] = True
        images[i, :, :, width:] = 0
    for i, width in enumerate((64, 50, 43, 64)):
        limits = torch.tensor([width, 59, width, 59])
        boxes = torch.minimum(targets[i].boxes, limits)
        keep = (boxes[:, 2:] - boxes[:, :2] > 2).all(1)
        targets[i] = Targets(targets[i].labels[keep], boxes[keep], (59, width))
    return batch._replace(images=images, padding_mask=mask, targets=targets)


def test_padding_and_clipping_do_not_depend_on_accumulation(
    make_detector: MakeDetector, frozen_statistics: Callable[[Detector], Detector], batch: Batch
) -> None:
    """The mask goes with its images, and the gradient is clipped once, when it is whole."""
    padded, weights = with_padding(batch), []
    for accumulate in (1, 2, 4):
        detector, padded = in_float64(frozen_statistics(make_detector(num_classes=6, num_denoising=0)), padded)
        result = step(detector, padded, batches__accumulate_steps=accumulate, optimizer__max_grad_norm=0.05)
        assert result.gradient_norm > 0.5
        weights.append(gradients(detector))
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in weights[-1].values()))
        assert norm == pytest.approx(0.05, rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in weights[0].values())
    for other in weights[1:]:
        for name, gradient in weights[0].items():
            assert float((other[name] - gradient).abs().max()) <= 1e-8 * scale, name
    unmasked = padded._replace(padding_mask=None)
    detector, _ = in_float64(frozen_statistics(make_detector(num_classes=6, num_denoising=0)), unmasked)
    step(detector, unmasked, optimizer__max_grad_norm=0.05)
    assert any(not torch.allclose(gradient, weights[0][name]) for name, gradient in gradients(detector).items())


@pytest.mark.parametrize("empty", [(), (0, 1), (3,), (0, 1, 2, 3)])
def test_accumulation_does_not_change_the_gradient(
    make_detector: MakeDetector, frozen_statistics: Callable[[Detector], Detector], batch: Batch, empty: tuple[int, ...]
) -> None:
    """Not even where one part has all the objects, or nobody has any: losses are divided by the step's objects."""
    batch = emptied(batch, *empty)
    results, actual = [], []
    for accumulate in (1, 2, 4):
        detector, batch = in_float64(frozen_statistics(make_detector(num_classes=6, num_denoising=0)), batch)
        results.append(step(detector, batch, batches__accumulate_steps=accumulate))
        actual.append(gradients(detector))
    assert_same(actual[0], actual[1], 1e-9)
    assert_same(actual[0], actual[2], 1e-9)
    for result in results[1:]:
        assert result.loss == pytest.approx(results[0].loss, rel=1e-5)
        assert result.losses == pytest.approx(results[0].losses, rel=1e-4, abs=1e-5)
        assert result.gradient_norm == pytest.approx(results[0].gradient_norm, rel=1e-4)


def test_the_sums_of_losses_are_divided_by_the_objects_of_the_step(
    make_detector: MakeDetector, frozen_statistics: Callable[[Detector], Detector], batch: Batch
) -> None:
    objects = sum(len(target.labels) for target in batch.targets)
    assert objects > 4
    detector = frozen_statistics(make_detector(num_classes=6, num_denoising=0))
    with torch.no_grad():
        summed = detector.loss(
            detector(batch.images, None, batch.targets), batch.targets, LossTotals(1, len(batch.targets))
        )
    result = step(detector, batch, batches__accumulate_steps=2)
    assert result.loss == pytest.approx(float(sum(summed.values())) / objects, rel=1e-4)


def test_a_step_without_any_object(make_detector: MakeDetector, batch: Batch) -> None:
    """The denoising branch stays part of the graph, so that processes have the same parameters to exchange."""
    detector = make_detector(num_classes=6).train()
    result = step(detector, emptied(batch, 0, 1, 2, 3))
    assert math.isfinite(result.loss)
    assert result.loss > 0
    actual = gradients(detector)
    assert actual.keys() == {name for name, _ in detector.named_parameters()}
    assert all(torch.isfinite(gradient).all() for gradient in actual.values())


def test_gradients_are_clipped_to_a_norm(make_detector: MakeDetector, batch: Batch) -> None:
    free, clipped = make_detector(num_classes=6).train(), make_detector(num_classes=6).train()
    torch.manual_seed(0)
    before = step(free, batch, optimizer__max_grad_norm=0.0)
    torch.manual_seed(0)
    after = step(clipped, batch, optimizer__max_grad_norm=0.25)
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients(free).values()))
    assert norm > 0.5
    # What is reported is the norm before clipping: it says how training goes.
    assert before.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert after.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert_same({name: g * (0.25 / norm) for name, g in gradients(free).items()}, gradients(clipped), 1e-5)


def test_what_diverges_is_not_stepped_on(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6).train()
    detector.head.criterion.weights = QueryLossWeights(giou_weight=math.inf)
    before = {name: parameter.detach().clone() for name, parameter in detector.named_parameters()}
    with pytest.raises(
        ValueError, match=r"^training has diverged: loss (inf|nan), .*; train again with a lower train\.lr"
    ):
        step(detector, batch)
    assert all(torch.equal(parameter, before[name]) for name, parameter in detector.named_parameters())


def test_weights_that_are_not_numbers_stop_training(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6).train()
    with torch.no_grad():
        detector.head.classes[0].bias.fill_(math.nan)
    with pytest.raises(ValueError, match=r"not (a )?finite|diverged"):
        step(detector, batch)


def test_bfloat16_keeps_weights_gradients_and_losses_in_float32(make_detector: MakeDetector, batch: Batch) -> None:
    results = {}
    for precision in ("float32", "bfloat16"):
        detector = make_detector(num_classes=6).train()
        computed = record_dtype(detector.backbone.stages["c3"])
        torch.manual_seed(0)
        results[precision] = step(detector, batch, runtime__precision=precision)
        assert computed == [getattr(torch, precision)]
        assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}
        assert {gradient.dtype for gradient in gradients(detector).values()} == {torch.float32}
        assert all(torch.isfinite(parameter).all() for parameter in detector.parameters())
    assert results["bfloat16"].loss == pytest.approx(results["float32"].loss, rel=0.1)
    assert results["bfloat16"].loss != results["float32"].loss


def test_a_step_moves_every_parameter_that_has_a_gradient(make_detector: MakeDetector, batch: Batch) -> None:
    detector = make_detector(num_classes=6).train()
    before = {name: parameter.detach().clone() for name, parameter in detector.named_parameters()}
    step(detector, batch, lr=1e-3, optimizer__weight_decay=0.0)
    moved = {name for name, parameter in detector.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name, gradient in gradients(detector).items() if gradient.any()}
    assert len(moved) > 0.95 * len(before)
