"""Parts of images: the pixels that the whole image has there, from memory and from large files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright_runtime import image_windows
from boxwright_runtime.image_windows import open_windows, reads_in_parts
from boxwright_runtime.images import read_image
from boxwright_runtime.tiles import Tile

PART = Tile(17, 5, 60, 48)
SIZE = (50, 70)

MODES = {"RGB": 3, "L": 1, "RGBA": 4, "LA": 2}


@pytest.fixture
def rasterio(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read the smallest files in parts."""
    module = pytest.importorskip("rasterio", reason="rasterio is not installed")
    monkeypatch.setattr(image_windows, "LARGE", 100)
    return module


def noise(channels: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    samples = np.random.default_rng(0).integers(0, high, (*SIZE, channels)).astype(dtype)
    return samples[..., 0] if channels == 1 else samples


def check(path: Path, *, tolerance: int = 0) -> None:
    expected = read_image(path)
    assert reads_in_parts(path)
    with open_windows(path) as windows:
        assert windows.size == SIZE
        part = windows.read(PART).astype(int)
        whole = windows.read_whole()
    assert np.abs(part - expected[PART.top : PART.bottom, PART.left : PART.right]).max() <= tolerance
    assert whole.scale == 1
    assert np.abs(whole.pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("rasterio")
def test_parts_of_tiff(tmp_path: Path, mode: str) -> None:
    Image.fromarray(noise(MODES[mode])).save(tmp_path / "image.tif")
    check(tmp_path / "image.tif")


@pytest.mark.parametrize("high", [1000, 4096, 65536])
@pytest.mark.parametrize("channels", [1, 3])
def test_parts_of_samples_of_16_bits(rasterio: Any, tmp_path: Path, high: int, channels: int) -> None:
    samples = noise(channels, high, np.uint16).reshape(*SIZE, channels)
    options = {"photometric": "RGB"} if channels == 3 else {}
    size = {"height": SIZE[0], "width": SIZE[1], "count": channels}
    with rasterio.open(
        tmp_path / "image.tif", "w", "GTiff", dtype="uint16", interleave="pixel", **size, **options
    ) as file:
        file.write(samples.transpose(2, 0, 1))
    # The brightest sample, which says how many bits there are, is outside of the part.
    check(tmp_path / "image.tif")


@pytest.mark.usefixtures("rasterio")
def test_parts_of_a_palette(tmp_path: Path) -> None:
    Image.fromarray(noise(3)).quantize(16).save(tmp_path / "image.tif")
    check(tmp_path / "image.tif")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.usefixtures("rasterio")
def test_parts_of_jpeg_2000(tmp_path: Path, mode: str) -> None:
    Image.fromarray(noise(MODES[mode])).save(tmp_path / "image.jp2")
    check(tmp_path / "image.jp2")


@pytest.mark.usefixtures("rasterio")
def test_the_whole_of_a_large_file_is_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from boxwright_runtime import raster_file

    monkeypatch.setattr(raster_file, "MAX_WHOLE", 35)
    image = noise(3)
    Image.fromarray(image).save(tmp_path / "image.tif")
    with open_windows(tmp_path / "image.tif") as windows:
        whole = windows.read_whole()
    assert (whole.pixels.shape, whole.scale) == ((25, 35, 3), 0.5)
    means = image.reshape(25, 2, 35, 2, 3).mean((1, 3))
    assert np.abs(whole.pixels - means).max() <= 1


def test_other_files_are_read_as_a_whole(tmp_path: Path) -> None:
    image = noise(3)
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(image).save(tmp_path / "image.tif")
    for given in (tmp_path / "image.png", tmp_path / "image.tif", (tmp_path / "image.png").read_bytes(), image):
        with open_windows(given) as windows:
            assert windows.size == SIZE
            np.testing.assert_array_equal(windows.read(PART), image[5:48, 17:60])
            assert windows.read_whole().scale == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Image.fromarray(noise(3)).save(path, tiffinfo={274: 6}), "turned by its orientation tag"),
        (lambda path: Image.fromarray(noise(1).astype(np.float32)).save(path), "floats of unknown range"),
        (lambda path: path.write_bytes(b"II*\0 is all there is"), "cannot be read as an image"),
        (lambda path: path.unlink(missing_ok=True), "there is no image"),
    ],
)
@pytest.mark.usefixtures("rasterio")
def test_files_that_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "image.tif")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught, open_windows(tmp_path / "image.tif"):
        pass
    assert "\n" not in str(caught.value)
    assert "image.tif" in str(caught.value)


def test_bands_without_a_color_are_refused(rasterio: Any, tmp_path: Path) -> None:
    size = {"height": SIZE[0], "width": SIZE[1], "count": 5}
    with rasterio.open(tmp_path / "image.tif", "w", "GTiff", dtype="uint8", photometric="MINISBLACK", **size) as file:
        file.write(np.zeros((5, *SIZE), dtype=np.uint8))
    with (
        pytest.raises(ValueError, match=r"5 bands, and none of them is said to be red"),
        open_windows(tmp_path / "image.tif"),
    ):
        pass


MEASURE = r"""
import re, sys
from pathlib import Path
from boxwright_runtime.image_windows import open_windows
from boxwright_runtime.tiles import TileOptions, cut_tiles
with open_windows(sys.argv[1]) as windows:
    tiles = cut_tiles(*windows.size, TileOptions(size=1024))
    total = sum(int(windows.read(tile)[0, 0, 0]) for tile in tiles)
    whole = windows.read_whole().pixels.shape
# Of this process alone: what resource tells begins with the memory of the one that started it.
print(len(tiles), whole, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_of_a_file_of_400_million_pixels(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read the memory of a process from")
    path, side = tmp_path / "image.tif", 20_000
    rows = np.tile((np.arange(side) % 251).astype(np.uint8), (3, 200, 1))
    with rasterio.open(
        path, "w", "GTiff", height=side, width=side, count=3, dtype="uint8", photometric="RGB", compress="deflate"
    ) as file:
        for top in range(0, side, 200):
            file.write(rows, window=((top, top + 200), (0, side)))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    *counted, megabytes = done.stdout.rsplit(maxsplit=1)
    assert counted == ["625 (4096, 4096, 3)"]
    # Pixels alone have 1,200 MB.
    assert int(megabytes) < 400
