"""Detections in georeferenced images as GeoJSON: where they are on earth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright.cli.main import main
from boxwright.workflows.geographic import read_georeference, write_features
from boxwright_runtime import Category, Detections
from boxwright_runtime.masks import encode_rle
from stand_in_export import write_stand_in

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")


def write_image(path: Path, **options: Any) -> Path:
    size = {"height": 80, "width": 120, "count": 3}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", photometric="RGB", **size, **options) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 80, 120), dtype=np.uint8))
    return path


@pytest.fixture
def degrees(tmp_path: Path) -> Path:
    """An image of a hundredth of a degree a pixel, from 10 degrees east and 50 degrees north."""
    transform = rasterio.transform.from_origin(10, 50, 0.01, 0.01)
    return write_image(tmp_path / "degrees.tif", crs="EPSG:4326", transform=transform)


def detect(**fields: Any) -> Detections:
    categories = (Category(7, "house"),)
    return Detections(np.array([[10.0, 20, 30, 60]]), np.array([0.5]), np.array([0]), categories=categories, **fields)


def test_boxes_in_degrees(degrees: Path) -> None:
    text = write_features({"a": detect()}, {"a": read_georeference(degrees)})
    (feature,) = json.loads(text)["features"]
    assert feature["properties"] == {
        "file_name": "a",
        "category_id": 7,
        "category_name": "house",
        "score": 0.5,
        "pixels": [10, 20, 30, 60],
    }
    (ring,) = feature["geometry"]["coordinates"]
    expected = [(10.1, 49.8), (10.1, 49.4), (10.3, 49.4), (10.3, 49.8), (10.1, 49.8)]
    np.testing.assert_allclose(ring, expected, atol=1e-9)
    # Against the clock, as RFC 7946 wants outer rings.
    x, y = np.array(ring).T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_outlines_of_masks(degrees: Path) -> None:
    mask = np.zeros((80, 120), dtype=np.bool_)
    mask[20:40, 10:30] = mask[50:60, 12:14] = True
    text = write_features({"a": detect(masks=(encode_rle(mask),))}, {"a": read_georeference(degrees)})
    geometry = json.loads(text)["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    corners = sorted((np.min(p[0], 0).tolist(), np.max(p[0], 0).tolist()) for p in geometry["coordinates"])
    np.testing.assert_allclose(corners, [([10.1, 49.6], [10.3, 49.8]), ([10.12, 49.4], [10.14, 49.5])], atol=1e-9)


def test_other_reference_systems_become_degrees(tmp_path: Path) -> None:
    # The origin of UTM's zone 32 lies on the meridian of 9 degrees and the equator.
    transform = rasterio.transform.from_origin(500_000, 0, 1, 1)
    path = write_image(tmp_path / "utm.tif", crs="EPSG:32632", transform=transform)
    text = write_features({"a": detect()}, {"a": read_georeference(path)})
    ring = np.array(json.loads(text)["features"][0]["geometry"]["coordinates"][0])
    # At the equator a degree has 110.6 km from south to north, 111.3 km from west to east.
    np.testing.assert_allclose(ring[0], (9 + 10 / 111_275, -20 / 110_620), rtol=1e-3, atol=1e-7)


def test_the_command(degrees: Path, tmp_path: Path) -> None:
    write_stand_in(tmp_path / "model.onnx", categories=tuple(Category(i, str(i)) for i in range(6)))
    target = tmp_path / "objects.geojson"
    command = ["predict", str(tmp_path / "model.onnx"), str(degrees), "--out", str(tmp_path / "out")]
    assert main([*command, "--threshold", "0", "--json", str(target)]) == 0
    features = json.loads(target.read_text())["features"]
    rings = np.array([one["geometry"]["coordinates"][0] for one in features])
    assert len(features) > 0
    assert rings[..., 0].min() >= 10
    assert rings[..., 0].max() <= 11.2
    assert rings[..., 1].min() >= 49.2
    assert rings[..., 1].max() <= 50


def test_images_without_coordinates_are_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stand_in(tmp_path / "model.onnx", categories=tuple(Category(i, str(i)) for i in range(6)))
    Image.new("RGB", (50, 40)).save(tmp_path / "photo.png")
    command = ["predict", str(tmp_path / "model.onnx"), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    assert main([*command, "--json", str(tmp_path / "objects.geojson")]) == 2
    assert "photo.png has no coordinates, as .geojson needs: write .json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
