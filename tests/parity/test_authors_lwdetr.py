"""LW-DETR's head beside RF-DETR's: the numbers of its code, made once (see README.md) and checked for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from stored_heads import check_predictions, check_terms, read_numbers
from stored_queries import read_targets
from torch import Tensor

from boxwright.heads.lwdetr import LWDETR
from boxwright.queries.mask_points import MaskPoints, MaskTargets
from boxwright.queries.options import SamplingDecoderOptions, UnitedSupervisionOptions
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare_tensors, note_inputs

pytestmark = pytest.mark.conforms("RF-DETR's head", "rfdetr")

SPEC: Spec = {"c0": Level(32, 16), "c1": Level(32, 32)}


def build_small(num_groups: int, *, masks: bool = False) -> LWDETR:
    """Build a head in float64 on the weights of ``formula.py``."""
    decoder = SamplingDecoderOptions(num_layers=2, num_heads=4, num_sampling_heads=8, num_points=2, feedforward_dim=64)
    supervision = UnitedSupervisionOptions(class_loss="iabce", num_groups=num_groups)
    head = LWDETR(SPEC, 5, hidden_dim=32, num_queries=10, decoder=decoder, supervision=supervision, masks=masks)
    set_weights(head)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            # Queries that differ, and boxes that move a little.
            parameter *= 5.0 if "contents" in name else 0.3 if "moves" in name else 1.0
    return head.eval()


def make_maps(sizes: np.ndarray) -> tuple[Features, Tensor]:
    """Make the maps of images of these sizes on one padded input, and its mask."""
    height, width = sizes.max(0).tolist()
    mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for one, (h, w) in zip(mask, sizes.tolist(), strict=True):
        one[:h, :w] = False
    shapes = {name: (-(-height // level.stride), -(-width // level.stride)) for name, level in SPEC.items()}
    return {name: uniform(f"map {name}", len(sizes), 32, *shape) for name, shape in shapes.items()}, mask


def check_training(
    head: LWDETR, features: Features, mask: Tensor | None, targets: list[Targets], authors: dict[str, np.ndarray]
) -> None:
    """Compare every term of the loss, and its gradients."""
    note_inputs(list(features.values()), targets=targets)
    features = {name: x.requires_grad_() for name, x in features.items()}
    losses = head.loss(head(features, mask, targets), targets)
    check_terms(losses, authors, tolerance=1e-9)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in head.named_parameters()}
    gradients |= {f"map {name}": x.grad for name, x in features.items()}
    check_gradients(gradients, authors, tolerance=1e-8, floor=1e-10)


def test_predictions_losses_and_gradients() -> None:
    authors = read_numbers("lwdetr")
    head = build_small(13)
    features, mask = make_maps(authors["sizes"])
    with torch.no_grad():
        check_predictions(head(features, mask), authors, logits=1e-9, boxes=1e-9)
    targets = read_targets(authors, [tuple(size) for size in authors["sizes"].tolist()])
    check_training(head, features, mask, targets, authors)


def make_ellipses(target: Targets) -> Tensor:
    """Make masks of ellipses in the boxes."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in target.size), indexing="ij")
    x1, y1, x2, y2 = target.boxes[..., None, None].unbind(1)
    return ((columns - (x1 + x2) / 2) * 2 / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) * 2 / (y2 - y1)) ** 2 <= 1


def make_points(target: Targets) -> MaskTargets:
    """Make points: the same in matching for all images, as the authors draw them."""
    assert target.masks is not None
    assert target.seed is not None
    i, count = target.seed, (target.size[0] // 4) * (target.size[1] // 4) // 16
    objects, others = len(target.labels), count - int(0.75 * count)
    shapes = {"matching": (count, 2), f"candidates {i}": (objects, 3 * count, 2), f"others {i}": (objects, others, 2)}
    points = MaskPoints(*((uniform(name, *shape) + 1) / 2 for name, shape in shapes.items()))
    for of_objects in points[1:]:
        of_objects[1] = of_objects[0]  # Two objects are equal: which of them a query gets is left to rounding.
    return MaskTargets(target.masks, target.size, points)


def test_masks_of_groups_and_of_selected_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    authors = read_numbers("lwdetr_masks")
    head = build_small(3, masks=True)
    features, _ = make_maps(authors["sizes"])
    with torch.no_grad():
        output = head(features)
        check_predictions(output, authors, logits=1e-9, boxes=1e-9)
        probabilities = output.masks.probabilities(torch.arange(10).expand(len(authors["sizes"]), -1))
    # Stored in float32, of every third row and column.
    compare_tensors("outputs", probabilities[..., ::3, ::3], authors["probabilities"], limit=1e-6, name="masks")
    targets = read_targets(authors, [tuple(size) for size in authors["sizes"].tolist()])
    targets = [one._replace(masks=make_ellipses(one), seed=i) for i, one in enumerate(targets)]
    monkeypatch.setattr("boxwright.queries.criterion.make_mask_targets", make_points)
    check_training(head, features, None, targets, authors)
