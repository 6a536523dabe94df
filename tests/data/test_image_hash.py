"""Nearly the same image has nearly the same hash; others have not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.image_inspection import NEAR_HASHES, difference_hash, hash_distances, inspect_image

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
    (320, 240), Image.Resampling.BICUBIC
)


def distance(one: Image.Image, other: Image.Image) -> float:
    hashes = [difference_hash(image) for image in (one, other)]
    assert hashes[0] is not None
    assert hashes[1] is not None
    return float(hash_distances(hashes[0], np.frombuffer(hashes[1], np.uint8)[None])[0])


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file)


def spots(seed: int) -> Image.Image:
    """A dark image with few bright spots."""
    pixels = np.full((256, 256), 9, np.uint8)
    for y, x in np.random.default_rng(seed).integers(0, 230, (3, 2)).tolist():
        pixels[y : y + 20, x : x + 20] = 200
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((200, 150)),
        lambda image: image.resize((700, 500)),
        recompressed,
        lambda image: image.convert("L"),
        lambda image: Image.eval(image, lambda value: value * 0.8 + 10),
        lambda image: image.crop((2, 2, 320, 240)),
    ],
)
def test_copies_are_near(change) -> None:
    assert distance(SMOOTH, change(SMOOTH)) <= NEAR_HASHES


def test_other_images_are_not() -> None:
    assert distance(SMOOTH, SMOOTH.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 2 * NEAR_HASHES
    # Most of their bits agree, as they are dark almost everywhere.
    assert min(distance(spots(seed), spots(seed + 1)) for seed in range(20)) > NEAR_HASHES


def test_a_file_turned_by_exif_has_the_hash_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    SMOOTH.save(tmp_path / "turned.png", exif=exif)
    SMOOTH.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    turned, upright = (inspect_image(tmp_path / f"{name}.png") for name in ("turned", "upright"))
    assert turned.dhash == upright.dhash
    assert turned.size == upright.size == (320, 240)
    assert turned.digest != upright.digest


def test_the_pair_of_the_blood_cells_and_no_other(real_data) -> None:
    folder = real_data("bccd") / "images"
    names = sorted(path.name for path in folder.glob("*.jpg"))[25:75]
    hashes = [inspect_image(folder / name).dhash for name in names]
    table = np.frombuffer(b"".join(one for one in hashes if one is not None), np.uint8).reshape(len(names), 18)
    near = [
        (name, names[index])
        for position, name in enumerate(names)
        for index in np.flatnonzero(hash_distances(table[position].tobytes(), table) <= NEAR_HASHES)
        if index > position
    ]
    assert near == [("BloodImage_00037.jpg", "BloodImage_00038.jpg")]
