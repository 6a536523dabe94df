"""The page docs/check.md: its table of damage, and the kinds of its repairs."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pages import ROOT
from PIL import Image

from boxwright.data.doctor import object_repair, repair
from boxwright.data.image_inspection import IMAGE_CHECKSUM, IMAGE_CUT, IMAGE_TEXT_DAMAGED, inspect_image
from boxwright.workflows import check_fix

PAGE = (ROOT / "docs" / "check.md").read_text()
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "JPEG": ("JPEG", {}),
    "JPEG, progressive": ("JPEG", {"progressive": True}),
    "WebP, lossy": ("WEBP", {}),
    "WebP, lossless": ("WEBP", {"lossless": True}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, uncompressed": ("TIFF", {}),
    "GIF": ("GIF", {}),
    "AVIF": ("AVIF", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "BMP": ("BMP", {}),
    "PPM": ("PPM", {}),
}
OF_DAMAGE = {IMAGE_CUT.name, IMAGE_CHECKSUM.name, IMAGE_TEXT_DAMAGED.name}
TRIES = 24


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def shown() -> dict[str, list[int]]:
    """Read the table: of each format, how many of 100 damages of each kind are found."""
    rows = [line.strip("| ").split(" | ") for line in section("Damaged images").splitlines() if line.startswith("| ")]
    return {name: [int(cell) for cell in cells] for name, *cells in rows[1:]}


def photograph() -> Image.Image:
    """Return something with structure of all sizes, and the grain of a sensor."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((240, 320, 3))
    for side in (4, 16, 64):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += np.asarray(noise.resize((320, 240), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray((pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8))


def is_found(file: bytes, path: Path) -> bool:
    path.write_bytes(file)
    try:
        return bool({kind for kind, _ in inspect_image(path).findings} & OF_DAMAGE)
    except ValueError:
        return True


def test_the_table_of_damage_has_every_format() -> None:
    assert shown().keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_of_damage_is_about_so(tmp_path: Path, name: str) -> None:
    """Numbers in between shift with the content; always and never are meant as they stand."""
    file_format, options = FORMATS[name]
    memory = io.BytesIO()
    photograph().save(memory, file_format, **options)
    whole, rng = memory.getvalue(), np.random.default_rng(1)
    assert not is_found(whole, tmp_path / "image")
    counts = [0, 0, 0, 0]
    for _ in range(TRIES):
        at = rng.integers(1, len(whole) - 512, 4).tolist()
        flipped = whole[at[3]] ^ 1 << int(rng.integers(8))
        damaged = (
            whole[: at[0]],
            whole[: at[1]] + rng.bytes(512) + whole[at[1] + 512 :],
            whole[: at[2]] + bytes(512) + whole[at[2] + 512 :],
            whole[: at[3]] + bytes((flipped,)) + whole[at[3] + 1 :],
        )
        for index, file in enumerate(damaged):
            counts[index] += is_found(file, tmp_path / "image")
    for count, expected in zip(counts, shown()[name], strict=True):
        tolerance = 5 if expected in (0, 100) else 30 if expected <= 10 or expected >= 90 else 100
        least, most = expected - tolerance, expected + tolerance
        assert least <= 100 * count / TRIES <= most, (counts, shown()[name])


@pytest.mark.parametrize("module", [repair, object_repair, check_fix])
def test_every_kind_of_repair_is_on_the_page(module: ModuleType) -> None:
    kinds = re.findall(r'FindingKind\(\s*"(\w+)"', inspect.getsource(module))
    assert kinds
    assert [kind for kind in kinds if f"`{kind}`" not in section("Repairs")] == []
