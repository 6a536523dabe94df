"""Reading, resizing and normalizing images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import resize as torchvision_resize

from boxwright.data.image_inspection import image_size, inspect_image
from boxwright.data.images import interpolate, normalize, resample
from boxwright_runtime.images import as_rgb, read_image
from boxwright_runtime.input_format import InputFormat, Window


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def oriented(path: Path, orientation: int) -> Path:
    image = Image.fromarray(noise(20, 34))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def pillow_bilinear(image: np.ndarray, height: int, width: int) -> torch.Tensor:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


class TestReadImage:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
    def test_applies_every_exif_orientation(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        path = oriented(tmp_path / f"a.{suffix}", orientation)
        with Image.open(path) as image:
            image.load()
            expected = np.asarray(ImageOps.exif_transpose(image))
        shape = (34, 20) if orientation >= 5 else (20, 34)
        assert expected.shape[:2] == shape
        np.testing.assert_array_equal(read_image(path), expected)
        assert image_size(path) == inspect_image(path).size == shape
        with Image.open(path) as image:
            np.testing.assert_array_equal(as_rgb(image), expected)

    def test_orientation_6_turns_the_first_row_into_the_last_column(self, tmp_path: Path) -> None:
        path = oriented(tmp_path / "a.png", 6)
        np.testing.assert_array_equal(read_image(path)[:, -1], noise(20, 34)[0])

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    @pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\xff\xff", b"x"])
    def test_damaged_exif_means_no_rotation(self, tmp_path: Path, exif: bytes) -> None:
        path = tmp_path / "a.jpg"
        Image.fromarray(noise(20, 34)).save(path, exif=exif)
        assert read_image(path).shape == (20, 34, 3)
        assert image_size(path) == (20, 34)

    def test_gray_has_three_equal_channels(self, tmp_path: Path) -> None:
        gray = noise(5, 7, channels=1)
        Image.fromarray(gray).save(tmp_path / "gray.png")
        np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), gray[:, :, None].repeat(3, axis=2))

    def test_bilevel_is_black_and_white(self, tmp_path: Path) -> None:
        Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], np.eye(4, dtype=np.uint8) * 255)

    def test_transparency_is_laid_on_black(self, tmp_path: Path) -> None:
        rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
        Image.fromarray(rgba).save(tmp_path / "rgba.png")
        expected = [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]
        np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), expected)
        np.testing.assert_array_equal(as_rgb(rgba), expected)

    def test_transparent_gray_and_palette_are_laid_on_black(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[[90, 255], [90, 0]]], dtype=np.uint8), "LA").save(tmp_path / "la.png")
        np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0, :, 0], [90, 0])
        palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.save(tmp_path / "p.png", transparency=1)
        np.testing.assert_array_equal(read_image(tmp_path / "p.png"), [[[10, 20, 30], [0, 0, 0]]])

    def test_16_bits_are_scaled_over_the_full_range(self, tmp_path: Path) -> None:
        gray = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
        for suffix in ("png", "tif"):
            Image.fromarray(gray).save(tmp_path / f"a.{suffix}")
            np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[0, :, 0], [0, 0, 1, 1, 128, 255])

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0, 0], [255, 0, 0])

    def test_unknown_range_is_an_error(self, tmp_path: Path) -> None:
        Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
        for read in (read_image, inspect_image):
            with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image: .*8 or 16 bits"):
                read(tmp_path / "a.tif")

    def test_takes_the_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(read_image(tmp_path / "a.gif")[0, 0], [255, 0, 0])

    def test_missing_file(self, tmp_path: Path) -> None:
        for read in (read_image, image_size, inspect_image):
            with pytest.raises(FileNotFoundError, match=r"no image .*nowhere\.png"):
                read(tmp_path / "nowhere.png")

    @pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"no image at all", "not an image")])
    def test_file_that_is_no_image(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        for read in (read_image, image_size, inspect_image):
            with pytest.raises(ValueError, match=rf"a\.jpg cannot be read as an image: .*{reason}"):
                read(tmp_path / "a.jpg")

    def test_folder_is_no_image(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_image(tmp_path)

    @pytest.mark.parametrize("suffix", ["png", "tif", "gif", "webp", "bmp"])
    def test_truncated_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise(64, 64)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for read in (read_image, inspect_image):
            with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read as an image") as caught:
                read(path)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("progressive", [False, True])
    def test_check_finds_what_reading_finds(self, tmp_path: Path, progressive: bool) -> None:
        whole = tmp_path / "whole.jpg"
        Image.fromarray(noise(48, 48)).save(whole, progressive=progressive)
        content = whole.read_bytes()
        verdicts = set()
        for cut in (0, 1, 2, 3, 5, 20, *range(100, len(content), 157)):
            path = tmp_path / "cut.jpg"
            path.write_bytes(content[: len(content) - cut])
            verdict = [_reads(read, path) for read in (read_image, inspect_image)]
            assert verdict[0] == verdict[1], f"{cut} bytes cut off"
            verdicts.add(verdict[0])
        assert verdicts == {True, False}

    def test_bomb_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*4096 pixels"):
            read_image(tmp_path / "a.png")


def _reads(read, path: Path) -> bool:
    try:
        read(path)
    except ValueError:
        return False
    return True


class TestAsRgb:
    def test_all_forms_of_one_image_agree(self, tmp_path: Path) -> None:
        pixels = noise(6, 9)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        forms = {
            "path": tmp_path / "a.png",
            "str": str(tmp_path / "a.png"),
            "PIL": Image.fromarray(pixels),
            "bytes": pixels,
            "float32": pixels.astype(np.float32) / 255,
            "float64": pixels / 255,
            "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
            "float tensor": torch.from_numpy(pixels).permute(2, 0, 1) / 255,
            "bgr turned round": pixels[..., ::-1].copy()[..., ::-1],
            "opaque": np.dstack([pixels, np.full((6, 9), 255, np.uint8)]),
        }
        for name, form in forms.items():
            np.testing.assert_array_equal(as_rgb(form), pixels, err_msg=name)

    def test_all_forms_of_one_gray_image_agree(self) -> None:
        gray = noise(6, 9, channels=1)
        expected = np.repeat(gray[:, :, None], 3, axis=2)
        tensor = torch.from_numpy(gray)
        for form in (gray, gray[:, :, None], tensor, tensor[None], Image.fromarray(gray), gray / 255):
            np.testing.assert_array_equal(as_rgb(form), expected)

    def test_half_precision_keeps_black_and_white(self) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            tensor = torch.tensor([[0.0, 0.5, 1.0]], dtype=dtype)
            np.testing.assert_array_equal(as_rgb(tensor)[0, :, 0], [0, 128, 255])

    @pytest.mark.parametrize(
        "shape_of",
        [
            lambda: np.zeros((3, 8, 8), np.uint8),
            lambda: np.zeros((2, 8, 8, 3), np.uint8),
            lambda: np.zeros((0, 8, 3), np.uint8),
            lambda: np.zeros(8, np.uint8),
            lambda: torch.zeros(8, 8, 3),
            lambda: torch.zeros(1, 3, 8, 8),
        ],
    )
    def test_wrong_shape(self, shape_of) -> None:
        with pytest.raises(ValueError, match=r"\(h, w, 3\).*\(3, h, w\).* has \("):
            as_rgb(shape_of())

    @pytest.mark.parametrize("low", [-0.1, 1.5, 255.0, math.nan, math.inf])
    def test_floats_outside_their_range(self, low: float) -> None:
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            as_rgb(np.full((4, 4, 3), low))

    @pytest.mark.parametrize("dtype", [np.int64, np.int16, np.bool_])
    def test_wrong_type_of_pixel(self, dtype: type) -> None:
        with pytest.raises(ValueError, match=f"uint8, uint16, or floats.* holds {np.dtype(dtype).name}"):
            as_rgb(np.zeros((4, 4, 3), dtype))

    def test_truncated_pil_image(self, tmp_path: Path) -> None:
        Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
        with (
            Image.open(tmp_path / "a.png") as image,
            pytest.raises(ValueError, match="PIL image cannot be read"),
        ):
            as_rgb(image)


class TestResample:
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160), (57, 83), (300, 90), (256, 256)])
    def test_whole_image_equals_pillow(self, height: int, width: int) -> None:
        image = noise(57, 83)
        pixels = resample(image, Window.whole(57, 83), height, width)
        difference = (pixels.int() - pillow_bilinear(image, height, width).int()).abs()
        assert pixels.dtype == torch.uint8
        assert difference.max() <= 1

    def test_window_inside_is_an_exact_crop(self) -> None:
        image = noise(40, 60)
        pixels = resample(image, Window(10, 5, 42, 37), 32, 32)
        assert torch.equal(pixels, torch.from_numpy(image[5:37, 10:42].copy()).permute(2, 0, 1))
        pixels = resample(image, Window(10, 5, 42, 37), 64, 96)
        assert torch.equal(pixels, resample(image[5:37, 10:42], Window.whole(32, 32), 64, 96))

    def test_zooming_out_surrounds_the_image_with_the_fill(self) -> None:
        image = noise(20, 30)
        pixels = resample(image, Window(-15, -40, 45, 40), 80, 120, fill=(1, 2, 3))
        inside = pixels[:, 40:60, 30:90]
        assert torch.equal(inside, resample(image, Window.whole(20, 30), 20, 60))
        outside = torch.ones(80, 120, dtype=torch.bool)
        outside[40:60, 30:90] = False
        assert torch.equal(pixels[:, outside], torch.tensor([[1], [2], [3]]).expand(3, 80 * 120 - 20 * 60))

    def test_window_partly_outside(self) -> None:
        image = noise(10, 10)
        pixels = resample(image, Window(5, -5, 15, 5), 10, 10)
        assert torch.equal(pixels[:, 5:, :5], torch.from_numpy(image[:5, 5:].copy()).permute(2, 0, 1))
        assert pixels[:, :5].sum() == pixels[:, :, 5:].sum() == 0

    def test_does_not_share_memory_with_the_image(self) -> None:
        image = noise(32, 32)
        before = image.copy()
        resample(image, Window.whole(32, 32), 32, 32).zero_()
        np.testing.assert_array_equal(image, before)

    def test_reads_arrays_that_are_read_only_or_turned(self) -> None:
        image = noise(16, 16)
        image.setflags(write=False)
        assert torch.equal(
            resample(image[:, ::-1], Window.whole(16, 16), 32, 32),
            resample(np.ascontiguousarray(image[:, ::-1]), Window.whole(16, 16), 32, 32),
        )

    @pytest.mark.parametrize("window", [Window(0, 0, 0, 5), Window(5, 0, 4, 5), Window(10, 0, 12, 5)])
    def test_window_beside_the_image(self, window: Window) -> None:
        with pytest.raises(ValueError, match="no part of an image's side of 10 pixels"):
            resample(noise(10, 10), window, 32, 32)

    @settings(max_examples=100, deadline=None)
    @given(x=st.floats(-100, 49.9), y=st.floats(-100, 39.9), width=st.floats(0.1, 300), height=st.floats(0.1, 300))
    def test_content_lies_where_the_window_says(self, x: float, y: float, width: float, height: float) -> None:
        """A white image's bounding box in the input is the image's box seen through the window."""
        window = Window(x, y, max(x + width, 0.1), max(y + height, 0.1))
        pixels = resample(np.full((40, 50, 3), 255, np.uint8), window, 64, 96)
        assert pixels.shape == (3, 64, 96)
        assert set(pixels.unique().tolist()) <= {0, 255}
        rows, columns = pixels[0].nonzero().unbind(1)
        scale_x, scale_y = 96 / (window.x2 - window.x1), 64 / (window.y2 - window.y1)
        seen = (
            (columns.min(), max(0, -window.x1 * scale_x)),
            (rows.min(), max(0, -window.y1 * scale_y)),
            (columns.max() + 1, min(96, (50 - window.x1) * scale_x)),
            (rows.max() + 1, min(64, (40 - window.y1) * scale_y)),
        )
        for actual, expected in seen:
            # Half a pixel of the input, but at least one is kept; no pixel of the image is rounded away.
            assert abs(float(actual) - expected) <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalizing_leaves_its_input_as_it_is(dtype: torch.dtype) -> None:
    pixels = torch.from_numpy(noise(8, 9)).permute(2, 0, 1).to(dtype)
    before = pixels.clone()
    input_format = InputFormat(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    expected = (before.float() / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    assert torch.equal(normalize(pixels, input_format), expected)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("order", ["rows of pixels", "channels"])
def test_the_resize_is_that_of_torchvision(order: str, dtype: torch.dtype, antialias: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width, new_height, new_width = (int(n) for n in rng.integers(1, 70, 4))
        pixels = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).to(dtype).permute(2, 0, 1)
        image = pixels.contiguous() if order == "channels" else pixels
        theirs = torchvision_resize(image, [new_height, new_width], antialias=antialias)
        assert torch.equal(interpolate(image, new_height, new_width, antialias=antialias), theirs)
    assert interpolate(image, height, width, antialias=antialias) is image


def test_bytes_are_resized_in_floats_where_torch_has_no_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).permute(2, 0, 1)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    ours, theirs = interpolate(image, 13, 17, antialias=True), torchvision_resize(image, [13, 17], antialias=True)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, theirs)
