"""LW-DETR's head beside RF-DETR's: the numbers of its code, made once (see README.md) and checked for ever."""

from __future__ import annotations

import numpy as np
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from stored_heads import check_predictions, check_terms, read_numbers
from stored_queries import read_targets
from torch import Tensor

from boxwright.heads.lwdetr import LWDETR
from boxwright.queries.options import SamplingDecoderOptions, UnitedSupervisionOptions
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c0": Level(32, 16), "c1": Level(32, 32)}


def build_small() -> LWDETR:
    """Build a head of 13 groups, in float64 on the weights of ``formula.py``."""
    decoder = SamplingDecoderOptions(num_layers=2, num_heads=4, num_sampling_heads=8, num_points=2, feedforward_dim=64)
    supervision = UnitedSupervisionOptions(class_loss="iabce", num_groups=13)
    head = LWDETR(SPEC, 5, hidden_dim=32, num_queries=10, decoder=decoder, supervision=supervision)
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


def test_predictions_losses_and_gradients() -> None:
    authors = read_numbers("lwdetr")
    head = build_small()
    features, mask = make_maps(authors["sizes"])
    with torch.no_grad():
        check_predictions(head(features, mask), authors, logits=1e-9, boxes=1e-9)

    features = {name: x.requires_grad_() for name, x in features.items()}
    targets = read_targets(authors, [tuple(size) for size in authors["sizes"].tolist()])
    losses = head.loss(head(features, mask, targets), targets)
    check_terms(losses, authors, tolerance=1e-9)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in head.named_parameters()}
    gradients |= {f"map {name}": x.grad for name, x in features.items()}
    check_gradients(gradients, authors, tolerance=1e-8, floor=1e-10)
