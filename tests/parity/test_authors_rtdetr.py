"""RT-DETR's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import make_images, set_weights
from stored_gradients import check_gradients
from stored_queries import use_stored_queries
from torch import Tensor

import boxwright
from boxwright.detector import Detector
from boxwright.queries import DenoisingOptions
from boxwright.structures import Targets

SIZE = 64


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "authors_rtdetr_r18.npz") as numbers:
        return dict(numbers)


@pytest.fixture(scope="module")
def detector() -> Detector:
    small = {"head.num_queries": 30, "head.denoising.num_queries": 8}
    detector = boxwright.build("rtdetr_r18", num_classes=5, overrides={"image_size": SIZE, **small})
    set_weights(detector)
    # The norms' own statistics, in training too: eight cells of the coarsest level make poor ones.
    return detector.eval()


@pytest.fixture
def noised(authors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the denoising queries that the authors drew, so that no random generator is compared."""

    use_stored_queries(monkeypatch, authors)


def test_logits_and_boxes(authors: dict[str, np.ndarray], detector: Detector) -> None:
    with torch.no_grad():
        output = detector(make_images(2, SIZE))
        logits, boxes = output.logits[-1], output.boxes_cxcywh_norm[-1]
    assert np.abs(logits.numpy() - authors["logits"]).max() < 5e-6
    assert np.abs(boxes.numpy() - authors["boxes"]).max() < 1e-6


@pytest.mark.parametrize("denoising", ["without", "with"])
@pytest.mark.usefixtures("noised")
def test_losses_and_gradients(authors: dict[str, np.ndarray], detector: Detector, denoising: str) -> None:
    detector.head.denoising = DenoisingOptions(num_queries=8 if denoising == "with" else 0)
    detector.zero_grad(set_to_none=True)
    targets = [
        Targets(*(torch.from_numpy(authors[f"object_{name}_{i}"]) for name in ("labels", "boxes")), (SIZE, SIZE))
        for i in range(2)
    ]
    losses = detector.loss(detector(make_images(2, SIZE), None, targets), targets)
    expected = dict(
        zip(authors[f"{denoising}/term_names"].tolist(), authors[f"{denoising}/terms"].tolist(), strict=True)
    )
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-6)

    total = sum(losses.values())
    assert isinstance(total, Tensor)
    total.backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    check_gradients(gradients, authors, prefix=f"{denoising}/", tolerance=1e-5, floor=1e-9)
