"""Detections in georeferenced images, as GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from boxwright_runtime.detections import Detection, Detections
from boxwright_runtime.image_file import image_errors
from boxwright_runtime.masks import decode_rle
from boxwright_runtime.printable_names import printable

GEO_SUFFIX = ".geojson"
"""Of files that detections are written to with the coordinates of their images."""

_LONGITUDE_LATITUDE = "EPSG:4326"
"""The one reference system of GeoJSON (RFC 7946, section 4)."""


class Georeference(NamedTuple):
    """Coordinates of the pixels of an image.

    Args:
        transform: affine, from pixels of the image to coordinates; (0, 0) is the upper left corner of the first pixel.
        system: reference system of the coordinates.
    """

    transform: Any
    system: Any

    def locate(self, x: float, y: float) -> tuple[float, float]:
        """Return the coordinates of a point of the image."""
        t = self.transform
        return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def read_georeference(path: Path | None) -> Georeference:
    """Read where an image lies.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image has no coordinates, or rasterio, which reads them, is not installed.
    """
    if path is None:
        raise ValueError(f"an image that is in no file has no coordinates, as {GEO_SUFFIX} needs: write .json")
    try:
        from boxwright_runtime.raster_file import open_raster
    except ImportError as error:
        raise ValueError(f"{GEO_SUFFIX} needs rasterio: pip install 'boxwright[large]'") from error
    with image_errors(path), open_raster(path) as file:
        georeference = Georeference(file.transform, file.crs)
    if georeference.system is None or georeference.transform.is_identity:
        raise ValueError(f"{printable(path)} has no coordinates, as {GEO_SUFFIX} needs: write .json")
    return georeference


def write_features(detections: Mapping[str, Detections], georeferences: Mapping[str, Georeference]) -> str:
    """Write detections as a FeatureCollection: outlines of masks, or else boxes, as longitude and latitude in degrees.

    Args:
        detections: by the name of their image.
        georeferences: of the images, by the same names.
    """
    features = [_feature(one, name, georeferences[name]) for name, of_image in detections.items() for one in of_image]
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"


def _feature(one: Detection, name: str, georeference: Georeference) -> dict[str, Any]:
    from rasterio.warp import transform_geom

    outline = _box(one, georeference) if one.mask is None else _outline(one, georeference)
    geometry = transform_geom(georeference.system, _LONGITUDE_LATITUDE, outline)
    category = {} if one.category is None else {"category_id": one.category.id, "category_name": one.category.name}
    properties = {"file_name": name, **category, "score": one.score, "pixels": list(one.box)}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _box(one: Detection, georeference: Georeference) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    # Against the clock on the map, where rows of pixels go from north to south.
    corners = [(x1, y1), (x1, y2), (x2, y2), (x2, y1), (x1, y1)]
    return {"type": "Polygon", "coordinates": [[georeference.locate(*corner) for corner in corners]]}


def _outline(one: Detection, georeference: Georeference) -> dict[str, Any]:
    from rasterio.features import shapes

    assert one.mask is not None
    mask = decode_rle(one.mask)
    polygons = [
        shape["coordinates"] for shape, _ in shapes(mask.astype("uint8"), mask=mask, transform=georeference.transform)
    ]
    return {"type": "MultiPolygon", "coordinates": polygons} if polygons else _box(one, georeference)
