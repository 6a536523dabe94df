"""Faults of many boxes at once, which are planted in a sound data set."""

from __future__ import annotations

from collections.abc import Callable

from image_plants import Plant
from sound_set import CLASSES, HEIGHT, WIDTH, SoundSet


def set_boxes(change: Callable[[float, float, float, float], list[float]]) -> Plant:
    """Change all boxes of train; their areas are left out."""

    def plant(sound: SoundSet) -> None:
        for one in sound.annotations():
            one["bbox"] = change(*one["bbox"])
            del one["area"]

    return plant


def reach_edges(sound: SoundSet) -> None:
    """Move the objects of the last class to the right and lower edges of their images."""
    for split in sound.documents:
        for one in sound.annotations(split):
            if one["category_id"] == len(CLASSES):
                one["bbox"][:2] = [WIDTH - one["bbox"][2], HEIGHT - one["bbox"][3]]


def upsample(change: Callable[[float, float, float, float], list[float]]) -> Plant:
    """Make all images four times as long and wide, and change the boxes of train, which reach the far edges."""

    def plant(sound: SoundSet) -> None:
        reach_edges(sound)
        for split in sound.documents:
            for image in sound.images(split):
                image.update(width=4 * WIDTH, height=4 * HEIGHT)
                pixels = sound.pixels[image["file_name"]]
                sound.pixels[image["file_name"]] = pixels.resize((4 * WIDTH, 4 * HEIGHT))
            for one in sound.annotations(split):
                one["bbox"] = change(*one["bbox"]) if split == "train" else [4 * value for value in one["bbox"]]
                del one["area"]

    return plant


def halve_images(sound: SoundSet) -> None:
    """Resize the images of train, and leave their sizes and boxes as they were."""
    reach_edges(sound)
    for image in sound.images():
        sound.pixels[image["file_name"]] = sound.pixels[image["file_name"]].resize((WIDTH // 2, HEIGHT // 2))


def move_boxes(count: int) -> Plant:
    """Move the first boxes partly beyond the left edge, which no other form explains."""

    def plant(sound: SoundSet) -> None:
        for one in sound.annotations()[:count]:
            one["bbox"][0] = -5

    return plant


def corners_in_first_images(count: int) -> Plant:
    def plant(sound: SoundSet) -> None:
        for one in sound.annotations()[: 3 * count]:
            x, y, w, h = one["bbox"]
            one["bbox"] = [x, y, x + w, y + h]
            del one["area"]

    return plant
