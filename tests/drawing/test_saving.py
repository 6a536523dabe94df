"""Files of drawings: equal to the drawing, and written fast."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.drawing import DrawingStyle, drawing_uri, save_drawing, save_drawings
from boxwright.structures import Category
from boxwright_runtime.detections import Detections


def textured() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 40, (200, 300, 3))
    return Image.fromarray((noise + np.linspace(0, 200, 300)[:, None]).astype(np.uint8))


def level_of(data: bytes) -> int:
    """Level of compression that the header of PNG's data names: 0 for the fastest, 2 for zlib's own."""
    return data[data.index(b"IDAT") + 5] >> 6


def test_png_is_exact_and_compressed_fast(tmp_path: Path) -> None:
    save_drawing(textured(), tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        assert np.array_equal(np.asarray(image), np.asarray(textured()))
    assert level_of((tmp_path / "a.PNG").read_bytes()) == 0
    slow = io.BytesIO()
    textured().save(slow, "PNG")
    assert level_of(slow.getvalue()) == 2
    assert (tmp_path / "a.PNG").stat().st_size < 1.3 * len(slow.getvalue())


@pytest.mark.parametrize("quality", [85, 80])
def test_jpeg_in_files_and_pages(tmp_path: Path, quality: int) -> None:
    save_drawing(textured(), tmp_path / "a.jpg")
    data = base64.b64decode(drawing_uri(textured(), quality=quality).removeprefix("data:image/jpeg;base64,"))
    for source in (tmp_path / "a.jpg", io.BytesIO(data)):
        with Image.open(source) as image:
            assert image.format == "JPEG"
            assert np.abs(np.asarray(image).astype(int) - np.asarray(textured())).mean() < 12


def test_a_folder_of_drawings(tmp_path: Path) -> None:
    gray = np.full((60, 80, 3), 128, dtype=np.uint8)
    one = Detections(
        torch.tensor([[10.0, 20, 50, 50]]), torch.tensor([0.9]), torch.tensor([0]), None, (Category(3, "a"),)
    )
    names = save_drawings([(gray, one), (gray, one[:0])], tmp_path / "new", style=DrawingStyle(labels="none"))
    assert names == ["image_0.png", "image_1.png"]
    with Image.open(tmp_path / "new" / "image_0.png") as image:
        assert image.size == (80, 60)
        assert (np.asarray(image) != 128).any()
    with Image.open(tmp_path / "new" / "image_1.png") as image:
        assert (np.asarray(image) == 128).all()
