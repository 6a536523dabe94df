"""RandAugment: the library's own, but a pure function of our random numbers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.rand_augment import rand_augment_image
from boxwright_runtime.input_format import ResizeRule

PLAIN: dict[str, Any] = {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}
BOXES = np.array([[0, 0, 80, 60]], dtype=np.float32)


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_it_is_torchvisions(magnitude: int) -> None:
    """With the seed that our generator gives, and on inputs whose memory is laid out by the resampling."""
    image = torch.from_numpy(noise()).permute(2, 0, 1)
    transform = v2.RandAugment(2, magnitude, 31, interpolation=v2.InterpolationMode.BILINEAR)
    for seed in range(20):
        ours = rand_augment_image(image, 2, magnitude, np.random.default_rng(seed))
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
        assert torch.equal(ours, transform(image.contiguous()))
        assert ours.dtype == torch.uint8
        assert ours.shape == image.shape


def test_a_sample_is_a_function_of_its_generator_alone() -> None:
    augment = Augmentation(**PLAIN, rand_augment=(2, 9))
    images = []
    for seed in range(30):
        torch.manual_seed(1000 + seed)
        first = augment.augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(seed)).image
        torch.manual_seed(2000 + seed)
        torch.rand(seed + 1)
        assert torch.equal(
            first, augment.augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(seed)).image
        )
        images.append(first.numpy().tobytes())
    assert len(set(images)) > 20


def test_the_process_keeps_its_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the GPUs too, which torch.manual_seed would set and nothing would restore."""

    def refuse(_: int) -> None:
        raise AssertionError("seeds the GPUs")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before, numpy_before = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    for seed in range(10):
        Augmentation(rand_augment=(3, 20)).augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(seed))
    assert torch.equal(torch.get_rng_state(), before)
    assert pickle.dumps(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_an_error_inside_restores_the_state_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()

    def fail(*_: Any) -> None:
        torch.rand(1)
        raise RuntimeError("broken")

    monkeypatch.setattr("torchvision.transforms.v2.RandAugment.forward", fail)
    with pytest.raises(RuntimeError, match="broken"):
        rand_augment_image(torch.zeros(3, 8, 8, dtype=torch.uint8), 1, 1, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_outside_is_black() -> None:
    """A white image that is shifted, sheared or turned has black corners or edges; colors leave it bright."""
    white, black = torch.full((3, 64, 64), 255, dtype=torch.uint8), 0
    for seed in range(60):
        image = rand_augment_image(white, 1, 20, np.random.default_rng(seed))
        black += bool((image.amax(0) == 0).any() and image.max() == 255)
    assert 10 < black < 45, "five of fourteen operations move the image"


def test_off_changes_nothing_and_draws_nothing() -> None:
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    images = [
        Augmentation(**options).augment_image(noise(), BOXES, ResizeRule(64), rng).image
        for options, rng in zip(({}, {"rand_augment": (0, 9)}), rngs, strict=True)
    ]
    assert torch.equal(*images)
    assert rngs[0].random() == rngs[1].random()


def test_there_is_none_of_it_without_strong_augmentation() -> None:
    augment, plain = Augmentation(**PLAIN, rand_augment=(2, 30)), Augmentation(**PLAIN)
    for seed in range(5):
        weak = augment.augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(seed), is_strong=False)
        assert torch.equal(
            weak.image, plain.augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(seed)).image
        )


def test_boxes_stay_where_they_were() -> None:
    augment = Augmentation(**PLAIN, rand_augment=(4, 30))
    result = augment.augment_image(noise(), BOXES, ResizeRule(64), np.random.default_rng(0))
    assert result.boxes.tolist() == [[0, 0, 64, 64]]


@pytest.mark.parametrize("operations", [(-1, 9), (2, -1), (2, 31)])
def test_bad_operations(operations: tuple[int, int]) -> None:
    message = r"rand_augment is a number of operations, at least 0, and their magnitude, 0 to 30; got \("
    with pytest.raises(ValueError, match=message):
        Augmentation(rand_augment=operations)
