"""DETR's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import make_images, set_weights, uniform
from torch import Tensor

from boxwright.backbones.resnet import ResNet
from boxwright.data.input_format import InputFormat
from boxwright.detector import Detector
from boxwright.heads.detr import DETR
from boxwright.necks.detr_encoder import DETREncoder
from boxwright.queries.criterion import normalized_targets
from boxwright.structures import Category, Targets

VARIANTS: dict[str, dict[str, Any]] = {
    "post_norm": {},
    "pre_norm": {"pre_norm": True},
    "learned": {"positions": "learned"},
    "dc5": {"dilated": True},
}
NUM_CLASSES, CANVAS, SIZES = 5, 96, [(64, 96), (96, 56)]


def detector(*, dilated: bool = False, **options: Any) -> Detector:
    """A small DETR on the weights of ``formula.py``, some of them stretched so that queries are told apart."""
    backbone = ResNet(
        depth=50,
        width=8,
        norm="frozen",
        frozen_stages=2,
        levels=("c5",),
        dilation="after_first" if dilated else "none",
    )
    options |= {"hidden_dim": 32, "num_heads": 4, "feedforward_dim": 64, "dropout": 0.0}
    neck = DETREncoder(backbone.out_spec, num_layers=3, **options)
    head = DETR(neck.out_spec, NUM_CLASSES, num_layers=3, num_queries=12, **options)
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    detector = Detector(backbone, [neck], head, categories=categories, input_format=InputFormat(image_size=CANVAS))
    set_weights(detector)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name == "head.queries.weight":
                parameter *= 12
            elif name.endswith("attention.out_proj.weight"):
                parameter *= 3 if "cross" in name else 0.3
    # The original has one table for both.
    head.positions.load_state_dict(neck.positions.state_dict())
    return detector


def padded_images() -> tuple[Tensor, Tensor]:
    """Two images of different sizes on one canvas, and where it is padding."""
    images, mask = 2 * make_images(2, CANVAS) - 1, torch.ones(2, CANVAS, CANVAS, dtype=torch.bool)
    for i, (h, w) in enumerate(SIZES):
        mask[i, :h, :w] = False
    return images.masked_fill(mask[:, None], 0.0), mask


def objects() -> list[Targets]:
    targets = []
    for i, (h, w) in enumerate(SIZES):
        count = 4 - 2 * i
        numbers = (uniform(f"objects of {i}", count, 4) + 1) / 2
        corner, sides = 0.6 * numbers[:, :2], 0.05 + 0.35 * numbers[:, 2:]
        boxes = torch.cat((corner, corner + sides), 1) * torch.tensor([w, h, w, h])
        targets.append(Targets(torch.arange(count) + i, boxes, (h, w)))
    return targets


def gradients(detector: Detector) -> dict[str, Tensor]:
    """By name; what reaches the two tables of learned positions is added up under the neck's name."""
    found: dict[str, Tensor] = {}
    for name, parameter in detector.named_parameters():
        if parameter.grad is not None:
            name = name.replace("head.positions", "necks.0.positions")
            found[name] = found.get(name, torch.zeros_like(parameter)) + parameter.grad
    return found


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "authors_detr.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_assignments_losses_and_gradients(authors: dict[str, np.ndarray], variant: str) -> None:
    expected = {key.removeprefix(f"{variant}/"): x for key, x in authors.items() if key.startswith(f"{variant}/")}
    ours, (images, mask), targets = detector(**VARIANTS[variant]).train(), padded_images(), objects()
    output = ours(images, mask, targets)
    # Positions are made in float32 on both sides.
    assert np.abs(output.logits.detach().numpy() - expected["logits"]).max() < 5e-6
    assert np.abs(output.boxes_cxcywh_norm.detach().numpy() - expected["boxes"]).max() < 1e-6

    matches = ours.head.criterion.matcher(*output, normalized_targets(targets))
    assert torch.stack(tuple(matches)).tolist() == expected["matches"].tolist()

    losses = ours.loss(output, targets)
    terms = dict(zip(expected["term_names"].tolist(), expected["terms"].tolist(), strict=True))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(terms, rel=1e-6)

    sum(losses.values()).backward()
    found = gradients(ours)
    names = expected["gradient_names"].tolist()
    assert set(found) == set(names)
    norms = expected["gradient_norms"]
    floor = 1e-9 * np.linalg.norm(norms)
    for name, norm, projection in zip(names, norms, expected["gradient_projections"], strict=True):
        grad = found[name]
        direction = uniform(f"direction of {name}", *grad.shape)
        assert abs(grad.norm().item() - norm) <= 1e-5 * norm + floor, name
        # A projection of a wrong gradient of the right norm would be off by about the norm itself.
        assert abs((grad * direction).sum().item() - projection) <= 1e-5 * norm * direction.norm() + floor, name
