"""Answers to a request: JSON, COCO's results, or the drawn image."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from starlette.responses import Response

from boxwright_runtime import Detections
from boxwright_runtime.answers import object_row

if TYPE_CHECKING:
    from jaxtyping import UInt8

_JPEG_QUALITY = 95


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image that was predicted.

    Args:
        name: as the client calls it.
        size: (height, width), upright.
        detections: that the client asked for.
        drawing: a JPEG; None where none was asked for.
    """

    name: str
    size: tuple[int, int]
    detections: Detections
    drawing: bytes | None = None


def answer_json(images: Sequence[SeenImage]) -> Response:
    """Answer with the images in order, each with its detections as ``boxwright predict --json`` lists them."""
    return _json_response(
        {
            "images": [
                {
                    "file_name": one.name,
                    "width": one.size[1],
                    "height": one.size[0],
                    "detections": [object_row(row) for row in one.detections],
                }
                for one in images
            ]
        }
    )


def answer_coco(images: Sequence[SeenImage]) -> Response:
    """Answer in COCO's results form; images are numbered from 1, and rows have their names too."""
    return _json_response(
        [
            {**row, "file_name": one.name}
            for image_id, one in enumerate(images, 1)
            for row in one.detections.to_coco(image_id)
        ]
    )


def answer_image(images: Sequence[SeenImage]) -> Response:
    """Answer with the drawing of the only image."""
    (image,) = images
    assert image.drawing is not None
    return Response(image.drawing, media_type="image/jpeg")


def draw_image(rgb: UInt8[np.ndarray, "h w 3"], detections: Detections) -> bytes:
    """Draw detections as ``boxwright predict`` does, as a JPEG."""
    # Fonts are read when the first drawing is made, not before the service is ready.
    from boxwright.drawing.detections import draw_detections

    drawing = draw_detections(rgb, detections, detections.categories, threshold=0.0)
    buffer = io.BytesIO()
    drawing.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _json_response(content: object) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")
