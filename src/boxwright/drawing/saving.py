"""Drawings as files and in pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxwright.drawing.detections import draw_detections
from boxwright.drawing.png import encode_png
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright_runtime.detections import Detections


def save_drawing(drawing: Image.Image, target: Path) -> None:
    """Write a drawing as PNG, or as JPEG of high quality."""
    if target.suffix.lower() == ".png":
        _write(target, encode_png(np.asarray(drawing.convert("RGB"))))
    else:
        drawing.save(target, quality=95)


def _write(target: Path, data: bytes) -> None:
    """Write a file as a whole; leave no part of a new one behind where that fails."""
    is_new = not target.exists()
    try:
        target.write_bytes(data)
    except OSError:
        if is_new:
            target.unlink(missing_ok=True)
        raise


def save_drawings(
    results: Iterable[tuple[UInt8[np.ndarray, "h w 3"], Detections]],
    folder: Path,
    *,
    style: DrawingStyle = AUTOMATIC,
) -> list[str]:
    """Draw detections on their images and write them as PNG files into a folder; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index, (image, detections) in enumerate(results):
        names.append(f"image_{index}.png")
        drawing = draw_detections(image, detections, detections.categories, threshold=0.0, style=style)
        save_drawing(drawing, folder / names[-1])
    return names


def drawing_uri(drawing: Image.Image, *, quality: int = 85) -> str:
    """Encode a drawing as JPEG for a page that holds its images itself.

    Args:
        drawing: RGB.
        quality: of the JPEG, 1 to 95. Colors are stored at full resolution from 85 on, which keeps thin lines.
    """
    buffer = io.BytesIO()
    drawing.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 85 else 2)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
