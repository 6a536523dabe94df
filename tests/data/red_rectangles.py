"""Check that boxes follow the pixels of their objects through an augmentation."""

from __future__ import annotations

import numpy as np

from boxwright.data.transforms.augment import Augmentation
from boxwright_runtime.input_format import ResizeRule


def followed_rectangles(augment: Augmentation, resize_rule: ResizeRule, tolerance: float) -> int:
    """Count the images of 200 in which a red rectangle remains; its box may miss its rim by ``tolerance`` pixels."""
    shown = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        corner = rng.integers(0, [150, 90])
        x1, y1, x2, y2 = box = np.concatenate((corner, corner + rng.integers(20, 60, 2)))
        image = np.full((150, 210, 3), 100, dtype=np.uint8)
        image[y1:y2, x1:x2] = (250, 0, 0)
        pixels, boxes, kept, _ = augment.augment_image(image, box[None].astype(np.float32), resize_rule, rng)
        red = ((pixels[0].int() - pixels[1].int()) > 125).nonzero()
        if not len(kept) or not len(red):
            continue
        shown += 1
        (top, left), (bottom, right) = red.amin(0).tolist(), (red.amax(0) + 1).tolist()
        assert np.abs(np.array([left, top, right, bottom]) - boxes[0]).max() <= tolerance
    return shown
