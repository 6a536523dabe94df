"""Whether boxes go where an augmentation moves the pixels of their objects."""

from __future__ import annotations

import numpy as np

from boxwright.data.input_format import ResizeRule
from boxwright.data.transforms.augment import Augmentation


def followed_rectangles(augment: Augmentation, resize_rule: ResizeRule, tolerance: float) -> int:
    """In how many of 200 gray images a red rectangle remains; its box may miss its rim by ``tolerance`` pixels."""
    shown = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        corner = rng.integers(0, [150, 90])
        x1, y1, x2, y2 = box = np.concatenate((corner, corner + rng.integers(20, 60, 2)))
        image = np.full((150, 210, 3), 100, dtype=np.uint8)
        image[y1:y2, x1:x2] = (250, 0, 0)
        canvas, boxes, kept, _ = augment(image, box[None].astype(np.float32), resize_rule, rng)
        found = ((canvas[0].int() - canvas[1].int()) > 125).nonzero()
        if not len(kept) or not len(found):
            continue
        shown += 1
        (top, left), (bottom, right) = found.amin(0).tolist(), (found.amax(0) + 1).tolist()
        assert np.abs(np.array([left, top, right, bottom]) - boxes[0]).max() <= tolerance
    return shown
