"""Run lengths against pycocotools, and polygons as pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from boxwright.data.synthetic.shapes import encode_run_lengths
from boxwright.ops.masks import decode_mask, encode_mask, mask_box, rasterize
from boxwright_runtime.masks import run_lengths, to_json


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("seed", range(20))
def test_masks_survive_packing_and_are_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.choice([0.0, 0.02, 0.5, 1.0])
    rle = encode_mask(torch.from_numpy(mask))
    assert rle == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert torch.equal(decode_mask(rle), torch.from_numpy(mask))
    # As a file has them: as text, or as numbers.
    text, plain = json.loads(json.dumps(to_json(rle))), encode_run_lengths(mask)
    assert torch.equal(decode_mask(text), torch.from_numpy(mask))
    assert torch.equal(decode_mask(plain), torch.from_numpy(mask))
    assert run_lengths(rle["counts"]) == run_lengths(text["counts"]) == plain["counts"]


def test_runs_that_are_longer_than_a_letter() -> None:
    mask = torch.zeros(900, 1100, dtype=torch.bool)
    mask[40:800, 300:1000] = True
    counts = run_lengths(encode_mask(mask)["counts"])
    assert counts[:3] == [300 * 900 + 40, 760, 140]
    assert sum(counts) == mask.numel()


@pytest.mark.parametrize(("text", "message"), [("a\x01", "is no letter"), ("aaP", "end within a number")])
def test_text_that_is_no_counts(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_lengths(text)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_pycocotools(seed: int) -> None:
    """Also those that leave the image, and objects of several parts."""
    rng = np.random.default_rng(seed)
    for count in (1, 3, 2):
        parts = [(rng.uniform(-20, 60, 2) + rng.normal(0, 15, (6, 2))).ravel().tolist() for _ in range(count)]
        theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, 30, 40)))
        assert np.array_equal(decode_mask(rasterize(parts, 30, 40)).numpy(), theirs.astype(bool))


def test_the_box_of_a_mask() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    assert mask_box(encode_mask(mask)) == (0, 0, 0, 0)
    mask[4:9, 7:29] = True
    for rle in (encode_mask(mask), to_json(encode_mask(mask)), encode_run_lengths(mask.numpy())):
        assert mask_box(rle) == (7, 4, 29, 9)
