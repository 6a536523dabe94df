"""A data set that the project draws itself, for first experiments."""

from __future__ import annotations

from pathlib import Path

from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.files import check_folder


def draw(out: str | Path, *, train: int = 400, val: int = 100, image_size: int = 256, seed: int = 0) -> Path:
    """Draw images of shapes in COCO format, with boxes and masks.

    Args:
        out: a new folder, or one of an older drawn set.
        train: images to train on.
        val: images held out.
        image_size: longest side, in pixels.
        seed: of everything that is drawn.

    Returns:
        the folder.

    Raises:
        ValueError: it is a file, or holds something else.
    """
    folder = Path(out)
    check_folder(folder)
    draw_data_set(folder, train=train, val=val, image_size=image_size, seed=seed)
    return folder
