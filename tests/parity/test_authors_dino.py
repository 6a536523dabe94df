"""DINO's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula import make_images, set_weights
from stored_heads import check_detector, read_numbers
from stored_queries import read_targets, use_stored_queries
from torch import Tensor

import boxwright
from boxwright.compose.recipes import resolve
from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.training.optimizer import make_optimizer

SMALL = {
    "neck.num_layers": 2,
    "head.decoder.num_layers": 2,
    "head.num_queries": 20,
    "head.denoising.num_queries": 50,
}


def build_small(recipe: str) -> Detector:
    """Build a recipe with two layers of full width, in float64 on the weights of ``formula.py``."""
    detector = boxwright.build(recipe, num_classes=5, overrides=SMALL)
    set_weights(detector)
    with torch.no_grad():
        # Queries that differ, and positions that count.
        detector.necks[0].get_parameter("level_embedding").mul_(10)
        detector.head.get_parameter("contents.weight").mul_(5)
    # The images are smaller than what batch statistics are of.
    return detector.eval()


def pad_images(sizes: np.ndarray) -> tuple[Tensor, Tensor]:
    """Make images of these sizes on one padded input, and its mask."""
    images = make_images(len(sizes), tuple(sizes.max(0).tolist()))
    mask = torch.ones(len(sizes), *images.shape[-2:], dtype=torch.bool)
    for one, (height, width) in zip(mask, sizes.tolist(), strict=True):
        one[:height, :width] = False
    return images.masked_fill(mask[:, None], 0.0), mask


@pytest.mark.conforms("DINO", "dino")
@pytest.mark.parametrize("recipe", ["dino_r50", "dino_r50_5scale"])
def test_predictions_losses_and_gradients(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authors = read_numbers(recipe)
    images, mask = pad_images(authors["sizes"])
    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [tuple(size) for size in authors["sizes"].tolist()])
    check_detector(build_small(recipe), authors, targets, images=images, mask=mask, logits=1e-6, boxes=1e-6)


@pytest.mark.parametrize("recipe", ["dino_r50", "dino_r50_5scale"])
def test_rates_and_decay_of_every_parameter(recipe: str) -> None:
    """By their ``param_dict_type = "default"``: one rate for the backbone, one for the rest, and everything decays."""
    with torch.device("meta"):
        detector = boxwright.build(recipe, num_classes=5)
    train = resolve(recipe).recipe.train
    assert isinstance(train, TrainOptions)
    groups = make_optimizer(detector, train).param_groups
    actual = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    trained = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[1] for name, p in detector.named_parameters() if not p.requires_grad}
    assert len(actual) == len(trained)
    assert frozen == {"conv1", "layer1"}
    for name, parameter in trained.items():
        assert actual[id(parameter)] == (1e-5 if name.startswith("backbone.") else 1e-4, 1e-4), name
