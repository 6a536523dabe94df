"""Independence of an image's detections from the images around it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from boxwright.detector import Detector
from boxwright.ops.masks import decode_mask
from boxwright_runtime.detections import Detections

SHAPES = ((60, 80), (200, 33), (64, 64), (31, 400), (90, 90), (120, 160), (80, 60), (30, 40), (61, 80))
"""(height, width): some have equal input sizes at a shortest side of 64 pixels, some are tall, some lines."""


def make_image(height: int, width: int, seed: int = 0) -> Image.Image:
    """Coarse noise: every image looks different to a detector."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def assert_same(one: Detections, other: Detections, tolerance: float = 1e-4) -> None:
    """Scores within ``tolerance``, boxes within as much of 200 pixels, masks but for one pixel in a thousand."""
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=tolerance)
    assert one.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=tolerance * 200)
    assert (one.masks is None) == (other.masks is None)
    for mask, again in zip(one.masks or (), other.masks or (), strict=True):
        assert mask == again or (decode_mask(mask) != decode_mask(again)).float().mean() <= 1e-3


def assert_alone_as_among_others(detector: Detector) -> None:
    """Images of all sizes are predicted as each alone, in any order and batch size."""
    images = [make_image(*shape, seed) for seed, shape in enumerate(SHAPES)]
    alone = [detector.predict(one) for one in images]
    for batch_size in (1, 2, 3, 8, 20):
        order = np.random.default_rng(batch_size).permutation(len(images)).tolist()
        together = detector.predict([images[i] for i in order], batch_size=batch_size)
        assert isinstance(together, list)
        assert len(together) == len(images)
        for i, actual in zip(order, together, strict=True):
            expected = alone[i]
            assert isinstance(expected, Detections)
            assert_same(expected, actual)
    first, other = alone[0], alone[5]
    assert isinstance(first, Detections)
    assert isinstance(other, Detections)
    enough = 5 if detector.task == "detection" else min(5, len(detector.categories))
    assert min(len(first.scores), len(other.scores)) >= enough, "something is found"
    assert (first.scores[:5] - other.scores[:5]).abs().max() > 1e-3, "the images are told apart at all"
