"""RT-DETR's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula import make_images
from stored_gradients import check_gradients
from stored_heads import SIZE, build_small, check_predictions, check_terms, read_numbers
from stored_queries import read_targets, use_stored_queries

from boxwright.detector import Detector
from boxwright.queries import DenoisingOptions
from conformance import note_inputs

pytestmark = pytest.mark.conforms("RT-DETR", "rtdetr")


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    return read_numbers("rtdetr_r18")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_small("rtdetr_r18", 30)


@pytest.fixture
def noised(authors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the denoising queries that the authors drew, so that no random generator is compared."""
    use_stored_queries(monkeypatch, authors)


def test_logits_and_boxes(authors: dict[str, np.ndarray], detector: Detector) -> None:
    note_inputs(make_images(2, SIZE))
    with torch.no_grad():
        check_predictions(detector(make_images(2, SIZE)), authors, logits=5e-6, boxes=1e-6)


@pytest.mark.parametrize("denoising", ["without", "with"])
@pytest.mark.usefixtures("noised")
def test_losses_and_gradients(authors: dict[str, np.ndarray], detector: Detector, denoising: str) -> None:
    detector.head.denoising = DenoisingOptions(num_queries=8 if denoising == "with" else 0)
    detector.zero_grad(set_to_none=True)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    note_inputs(make_images(2, SIZE), targets=targets)
    losses = detector.loss(detector(make_images(2, SIZE), None, targets), targets)
    check_terms(losses, authors, prefix=f"{denoising}/")

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    check_gradients(gradients, authors, prefix=f"{denoising}/", tolerance=1e-5, floor=1e-9)
