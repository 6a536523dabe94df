"""Any backbone with any necks and any head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from boxwright.compose.parts import list_parts
from boxwright.detector import Detector
from boxwright.layers.folding import unfolded_norms
from boxwright.structures import Targets
from boxwright_runtime.detections import Detections
from part_checks import composed
from random_weights import calibrate

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 4
BACKBONES, NECKS, HEADS = list_parts("backbones"), list_parts("necks"), list_parts("heads")
ALL_NECKS = [(), *((name,) for name in NECKS)]
CHAINS = [("fpn", "pafpn"), ("deformable_encoder", "bifpn"), ("augfpn", "hybrid_encoder", "nas_fpn"), tuple(NECKS)]


def named(value: object) -> str:
    return value if isinstance(value, str) else "+".join(value) or "no neck"  # type: ignore[arg-type]


def images() -> Tensor:
    """Images that are not square, and no multiples of a stride."""
    return torch.rand(2, 3, 75, 101, generator=torch.Generator().manual_seed(0))


def mask() -> Tensor:
    """Padding of both of them."""
    padding = torch.zeros(2, 75, 101, dtype=torch.bool)
    padding[0, :, 88:] = padding[1, 60:] = True
    return padding


def tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def loss_of(detector: Detector, targets: list[Targets]) -> Tensor:
    torch.manual_seed(0)
    return torch.stack(list(detector.loss(detector(images(), mask(), targets), targets).values())).sum()


def combinations() -> list[object]:
    """List all of them: each two parts together once, and each chain with each head; the others as slow tests."""
    pairs = {(BACKBONES[(i + j) % len(BACKBONES)], i, j) for i in range(len(ALL_NECKS)) for j in range(len(HEADS))}
    cases: list[object] = []
    for backbone, (i, necks), (j, head) in product(BACKBONES, enumerate(ALL_NECKS), enumerate(HEADS)):
        marks = [] if (backbone, i, j) in pairs else [pytest.mark.slow]
        cases.append(pytest.param(backbone, necks, head, marks=marks))
    return [*cases, *product(["resnet"], CHAINS, HEADS)]


@pytest.mark.parametrize(("backbone", "necks", "head"), combinations(), ids=named)
def test_any_parts_make_a_detector(backbone: str, necks: tuple[str, ...], head: str, make_targets: MakeTargets) -> None:
    """One step of training, then prediction, and the same prediction from the saved state."""
    detector, targets = composed(backbone, necks, head, NUM_CLASSES).train(), make_targets([3, 1], size=(60, 88))
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    loss_of(detector, targets).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is never reached"
            assert parameter.grad.isfinite().all(), name
    torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
    optimizer.step()
    assert loss_of(detector, targets).isfinite()

    detections = detector.predict(list(images()))
    assert isinstance(detections, list)
    assert all(isinstance(one, Detections) and one.boxes.isfinite().all() for one in detections)
    other = composed(backbone, necks, head, NUM_CLASSES)
    other.load_state_dict(detector.state_dict())
    for one, again in zip(detections, other.predict(list(images())), strict=True):
        assert isinstance(again, Detections)
        for field in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(one, field), getattr(again, field))
        assert one.masks == again.masks


@pytest.mark.parametrize(
    ("backbone", "necks", "head"),
    [
        *product(BACKBONES, [("fpn",)], HEADS[:1]),
        *product(["resnet"], ALL_NECKS, HEADS[-1:]),
        *product(["resnet"], [("fpn",)], HEADS),
    ],
    ids=named,
)
def test_any_part_learns(backbone: str, necks: tuple[str, ...], head: str, make_targets: MakeTargets) -> None:
    detector, targets = composed(backbone, necks, head, NUM_CLASSES).train(), make_targets([3, 1], size=(60, 88))
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    losses = []
    for _ in range(90):
        torch.manual_seed(0)  # The same noise and samples in every step, so that only learning lowers the loss.
        losses.append(loss_of(detector, targets))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        if losses[-1] < 0.97 * losses[0] and len(losses) >= 30:
            return
    pytest.fail(f"the loss did not fall by 3 %: {[round(loss.item(), 2) for loss in losses]}")


@pytest.mark.parametrize(
    ("backbone", "necks", "head"),
    [
        *product(BACKBONES, [("fpn",)], HEADS[:1]),
        *product(["resnet"], ALL_NECKS, HEADS[:1]),
        *product(["resnet"], [("fpn",)], HEADS),
    ],
    ids=named,
)
def test_norms_are_folded_without_a_change(backbone: str, necks: tuple[str, ...], head: str) -> None:
    detector = composed(backbone, necks, head, NUM_CLASSES)
    calibrate(detector, images())
    detector.eval()
    folded = detector.fold()
    assert len(unfolded_norms(folded)) <= len(unfolded_norms(detector)) / 2
    with torch.no_grad():
        expected, output = (one.decode(one(images(), mask())).scores for one in (detector, folded))
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("backbone", "necks", "head"),
    [
        *product(BACKBONES, [("fpn",)], HEADS[:1]),
        *product(["resnet"], ALL_NECKS, HEADS[:1]),
        *product(["resnet"], [("fpn",)], HEADS),
    ],
    ids=named,
)
def test_any_part_predicts_in_any_precision(
    backbone: str, necks: tuple[str, ...], head: str, dtype: torch.dtype
) -> None:
    detector = composed(backbone, necks, head, NUM_CLASSES)
    calibrate(detector, images())
    expected = detector.eval().predict(list(images()))
    detections = detector.to(dtype).predict(list(images()))
    for one, exact in zip(detections, expected, strict=True):
        assert isinstance(one, Detections)
        assert isinstance(exact, Detections)
        assert one.boxes.isfinite().all()
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
        assert len(one) > 0
        # Best scores agree as far as the precision goes; which of equals is the first may differ.
        tolerance = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float64: 1e-4}[dtype]
        assert one[0].score == pytest.approx(exact[0].score, abs=tolerance)
