"""Samples of more than 8 bits keep their levels: they are scaled by the range that a file uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import png
from PIL import Image

from boxwright.data.image_inspection import IMAGE_RANGE, inspect_image
from boxwright_runtime.images import as_rgb, read_image


def ramp(largest: int, channels: int = 1) -> np.ndarray:
    values = np.linspace(0, largest, 40 * 50 * channels).round().astype(np.uint16)
    return np.random.default_rng(0).permutation(values).reshape(40, 50, channels)


@pytest.mark.parametrize(
    ("largest", "depth"),
    [
        (200, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (3000, 12),
        (4095, 12),
        (4096, 14),
        (16384, 16),
        (65535, 16),
    ],
)
class TestDepths:
    def test_gray(self, tmp_path: Path, largest: int, depth: int) -> None:
        samples = ramp(largest)[..., 0]
        expected = (samples / (2**depth - 1) * 255).round()
        for suffix in ("png", "tif"):
            Image.fromarray(samples).save(tmp_path / f"a.{suffix}")
            read = read_image(tmp_path / f"a.{suffix}")
            assert np.abs(read[..., 0] - expected).max() <= 0.51
            assert (read == read[..., :1]).all()
            facts = inspect_image(tmp_path / f"a.{suffix}")
            assert (facts.depth, facts.channels) == (depth, 1)
            assert ((IMAGE_RANGE.name, f"{depth} bits") in facts.findings) == (depth < 16)
        assert len(np.unique(read)) == len(np.unique(expected))

    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_several_channels(self, tmp_path: Path, largest: int, depth: int, channels: int) -> None:
        samples = ramp(largest, channels)
        if channels % 2 == 0:
            samples[..., -1] = 65535
            samples[0, 0, 0] = largest
        (tmp_path / "a.png").write_bytes(png(samples))
        read = read_image(tmp_path / "a.png")
        colors = samples[..., : 3 if channels > 2 else 1]
        assert np.abs(read - colors / (2**depth - 1) * 255).max() <= 0.51
        facts = inspect_image(tmp_path / "a.png")
        assert (facts.depth, facts.channels) == (depth, 1 if channels == 2 else 3)
        if channels > 2:
            np.testing.assert_array_equal(as_rgb(samples), read)

    def test_arrays_and_tensors_are_scaled_as_files_are(self, tmp_path: Path, largest: int, depth: int) -> None:  # noqa: ARG002
        samples = ramp(largest, 3)
        (tmp_path / "a.png").write_bytes(png(samples))
        for form in (samples, torch.from_numpy(samples).permute(2, 0, 1)):
            np.testing.assert_array_equal(as_rgb(form), read_image(tmp_path / "a.png"))


def test_a_dark_and_a_bright_image_of_one_camera_have_the_same_scale() -> None:
    dark, bright = np.full((4, 4), 1100, np.uint16), np.full((4, 4), 4000, np.uint16)
    assert as_rgb(dark)[0, 0, 0] == round(1100 / 4095 * 255)
    assert as_rgb(bright)[0, 0, 0] == round(4000 / 4095 * 255)


def test_transparency_has_a_range_of_its_own(tmp_path: Path) -> None:
    samples = np.zeros((2, 2, 4), np.uint16)
    samples[..., :3], samples[0, :, 3], samples[1, :, 3] = 1023, 65535, 0
    (tmp_path / "a.png").write_bytes(png(samples))
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [255, 0]


def test_16_bit_tiff_of_three_channels_in_either_byte_order(tmp_path: Path) -> None:
    samples = ramp(1023, 3)
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        (tmp_path / "a.tif").write_bytes(tiff(samples, order, mark))
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), as_rgb(samples))
        assert inspect_image(tmp_path / "a.tif").depth == 10


def tiff(samples: np.ndarray, order: str, mark: bytes) -> bytes:
    """Return an uncompressed TIFF of 16 bits, which Pillow cannot write."""
    height, width, channels = samples.shape

    def pack(kind: str, *values: int) -> bytes:
        return b"".join(np.array(value, order + kind).tobytes() for value in values)

    content = samples.astype(order + "u2").tobytes()
    behind = 8 + 2 + 12 * 9 + 4
    entries = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, behind), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, behind + 2 * channels), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(content))),
    ]
    fields = b""
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        fields += pack("u2", tag, kind) + pack("u4", count) + (pack("u2", value, 0) if short else pack("u4", value))
    offset, number = pack("u4", 8), pack("u2", len(entries))
    return mark + offset + number + fields + pack("u4", 0) + pack("u2", *[16] * channels) + content
