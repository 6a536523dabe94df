"""Faults of image files, which are planted in a sound data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from sound_set import HEIGHT, WIDTH, SoundSet

Plant = Callable[[SoundSet], Any]

FIRST = "001.png"
"""The first image of train."""


def change_file(change: Callable[[Path], object]) -> Plant:
    """Change the file of the first image once it is written."""

    def plant(sound: SoundSet) -> None:
        sound.after.append(lambda folder: change(folder / FIRST))

    return plant


def change_pixels(change: Callable[[Image.Image], Image.Image]) -> Plant:
    def plant(sound: SoundSet) -> None:
        sound.pixels[FIRST] = change(sound.pixels[FIRST])

    return plant


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


def save_turned(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 3
    image.save(path, exif=exif)


def cut_jpeg(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    image.save(path, "JPEG", quality=95)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def save_16_bits(path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 1024, (HEIGHT, WIDTH)).astype(np.uint16)
    Image.fromarray(gray).save(path)


def resize_image(width: int, height: int) -> Plant:
    """Give the first image, which loses its objects but one, another size."""

    def plant(sound: SoundSet) -> None:
        sound.pixels[FIRST] = sound.pixels[FIRST].resize((width, height))
        sound.images()[0].update(width=width, height=height)
        for one in sound.annotations():
            if one["image_id"] == 1:
                one["bbox"] = [1 + one["category_id"], 2, 10 + one["category_id"] ** 2, 11]
                del one["area"]

    return plant


def repeat_image(split: str, change: Callable[[Image.Image], Image.Image]) -> Plant:
    """Give the last image of a split nearly the pixels of the first one of train."""

    def plant(sound: SoundSet) -> None:
        sound.pixels[sound.images(split)[-1]["file_name"]] = change(sound.pixels[FIRST])

    return plant


def brighten(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value * 0.9 + 12)
