"""Damaged image files of every format: found before they are used, or used with a note."""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import FILES, PIXELS, chunk, encode, flip_byte, pixels_of, png
from PIL import ExifTags, Image, ImageFile

from boxwright.data.image_inspection import (
    IMAGE_CHECKSUM,
    IMAGE_CUT,
    IMAGE_TEXT_DAMAGED,
    IMAGE_TURNED,
    ImageFacts,
    inspect_image,
)
from boxwright_runtime.images import decode_rgb, read_image
from boxwright_runtime.jpeg_markers import END, end_position, lacks_scans, scan_start


def inspect(folder: Path, file: bytes) -> ImageFacts | str:
    """Return the facts of a file, or the line that says why it has none."""
    path = folder / "image"
    path.write_bytes(file)
    try:
        return inspect_image(path)
    except ValueError as error:
        return str(error).replace("\n", "a second line")


def cmyk_jpeg() -> bytes:
    file = io.BytesIO()
    Image.frombytes("CMYK", (96, 72), np.dstack((PIXELS, PIXELS[..., 0])).tobytes()).save(file, "JPEG")
    return file.getvalue()


def large_jpeg() -> bytes:
    """Return a JPEG of 768 x 576 pixels, of which a draft has an eighth of the rows and columns."""
    return encode("JPEG", np.asarray(Image.fromarray(PIXELS).resize((768, 576), Image.Resampling.BICUBIC)))


def inspect_facts(folder: Path, file: bytes) -> ImageFacts:
    facts = inspect(folder, file)
    assert isinstance(facts, ImageFacts), facts
    return facts


def kinds(facts: ImageFacts | str) -> set[str]:
    return {kind for kind, _ in facts.findings} if isinstance(facts, ImageFacts) else {facts}


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


@pytest.mark.filterwarnings("ignore")
class TestFlippedBytes:
    def test_of_240_png_all_are_found(self, tmp_path: Path) -> None:
        whole = png(PIXELS, chunk(b"tEXt", b"Comment\0" + b"words " * 300), idat=512)
        refused = noted = 0
        for seed in range(240):
            facts = inspect(tmp_path, flip_byte(whole, seed))
            if isinstance(facts, str):
                refused += 1
            else:
                noted += kinds(facts) == {IMAGE_TEXT_DAMAGED.name}
                assert same(read_image(tmp_path / "image"), PIXELS)
        assert refused + noted == 240
        assert noted > 10

    def test_every_byte_of_a_small_png(self, tmp_path: Path) -> None:
        whole = png(PIXELS[:5, :5], chunk(b"tIME", b"\x07\xea\1\1\1\1\1"), idat=40)
        for position in range(len(whole)):
            for bit in (1, 0x20):
                changed = bytearray(whole)
                changed[position] ^= bit
                facts = inspect(tmp_path, bytes(changed))
                pixels = pixels_of(bytes(changed))
                assert (pixels is None) == isinstance(facts, str)
                assert pixels is None or same(pixels, PIXELS[:5, :5])

    @pytest.mark.parametrize("name", FILES)
    def test_reading_and_inspecting_agree(self, tmp_path: Path, name: str) -> None:
        for seed in range(25):
            file = flip_byte(FILES[name], seed)
            facts, pixels = inspect(tmp_path, file), pixels_of(file)
            assert isinstance(facts, ImageFacts) == (pixels is not None), (seed, facts)
            assert pixels is None or facts.size == pixels.shape[:2]

    @pytest.mark.parametrize(("name", "refused"), [("deflate.tiff", 0.8), ("png", 0.99), ("webp", 0.25), ("gif", 0.2)])
    def test_formats_differ_in_what_they_tell(self, name: str, refused: float) -> None:
        unread = sum(pixels_of(flip_byte(FILES[name], seed)) is None for seed in range(100))
        assert unread >= 100 * refused - 5


class TestPng:
    def test_pixels_with_another_checksum_are_used_with_a_finding(self, tmp_path: Path) -> None:
        wrong = b""

        def wrong_sum(content: bytes) -> bytes:
            nonlocal wrong
            wrong = zlib.compress(content)[:-4] + b"\0\0\0\0"
            return wrong

        png(PIXELS, stream=wrong_sum)
        # In a chunk of its own, the checksum is not seen by Pillow.
        facts = inspect(tmp_path, png(PIXELS, idat=len(wrong) - 4, stream=wrong_sum))
        assert kinds(facts) == {IMAGE_CHECKSUM.name}
        np.testing.assert_array_equal(read_image(tmp_path / "image"), PIXELS)

    @pytest.mark.parametrize("name", [b"tRNS", b"PLTE", b"eXIf", b"IDAT"])
    def test_a_damaged_chunk_that_pixels_depend_on_is_an_error(self, tmp_path: Path, name: bytes) -> None:
        damaged = chunk(name, b"\0\0\0\0\0\0")[:-1] + b"?"
        assert "is damaged: wrong checksum" in str(inspect(tmp_path, png(PIXELS, damaged)))

    @pytest.mark.parametrize("cut", [1, 4, 11, 12, 13, 20, 600])
    def test_without_its_end(self, tmp_path: Path, cut: int) -> None:
        assert "truncated" in str(inspect(tmp_path, FILES["png"][:-cut]))

    def test_bytes_behind_the_end_do_not_matter(self, tmp_path: Path) -> None:
        assert kinds(inspect(tmp_path, FILES["png"] + b"more")) == set()


@pytest.mark.filterwarnings("ignore")
class TestCutFiles:
    @pytest.mark.parametrize("name", sorted(set(FILES) - {"jpeg", "progressive.jpeg", "mpo"}))
    def test_are_errors(self, tmp_path: Path, name: str) -> None:
        file = FILES[name]
        for stop in np.random.default_rng(1).integers(0, len(file), 25).tolist():
            facts = inspect(tmp_path, file[:stop])
            if isinstance(facts, ImageFacts):
                assert same(pixels_of(file[:stop]), pixels_of(file)), f"cut at {stop} of {len(file)}"

    @pytest.mark.parametrize("name", ["jpeg", "progressive.jpeg"])
    def test_jpegs_are_used_as_far_as_they_go(self, tmp_path: Path, name: str) -> None:
        file, used = FILES[name], 0
        start = file.rfind(b"\xff\xda", 0, 700)
        for stop in np.random.default_rng(2).integers(start, len(file), 40).tolist():
            facts = inspect(tmp_path, file[:stop])
            pixels = pixels_of(file[:stop])
            assert isinstance(facts, ImageFacts) == (pixels is not None)
            if isinstance(facts, ImageFacts):
                used += 1
                assert kinds(facts) == {IMAGE_CUT.name}
        assert used > 30
        assert not ImageFile.LOAD_TRUNCATED_IMAGES

    def test_the_rest_of_a_cut_jpeg_is_gray(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(3).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        whole = encode("JPEG", pixels, quality=80)
        facts = inspect(tmp_path, whole[: len(whole) // 2])
        assert isinstance(facts, ImageFacts)
        (finding,) = facts.name_findings("a.jpg")
        missing = float(finding.detail.removesuffix("% of the rows are missing")) / 100
        assert 0.4 < missing < 0.56
        read, expected = read_image(tmp_path / "image"), decode_rgb(whole)
        rows = int(256 * (1 - missing)) - 24
        np.testing.assert_array_equal(read[:rows], expected[:rows])
        assert (read[rows + 40 :] == 128).all()

    def test_an_end_that_comes_early_is_a_cut(self, tmp_path: Path) -> None:
        whole = FILES["jpeg"]
        assert kinds(inspect(tmp_path, whole[: len(whole) // 2] + b"\xff\xd9")) == {IMAGE_CUT.name}

    @pytest.mark.parametrize("name", ["jpeg", "cmyk.jpeg", "large.jpeg", "mpo"])
    def test_an_end_marker_amid_the_pixels_is_a_cut(self, tmp_path: Path, name: str) -> None:
        """The decoder stops there, though more pixels and another end follow."""
        whole = {"large.jpeg": large_jpeg, "cmyk.jpeg": cmyk_jpeg}.get(name, lambda: FILES[name])()
        start, end = scan_start(whole), end_position(whole)
        assert start is not None
        assert end is not None
        for part in np.linspace(0.1, 0.85, 40).tolist():
            middle = int(start + part * (end - start))
            facts = inspect_facts(tmp_path, whole[:middle] + END + whole[middle + 2 :])
            details = dict(facts.findings)
            assert details.keys() == {IMAGE_CUT.name}, part
            assert 0 < int(details[IMAGE_CUT.name].removesuffix("% of the rows are missing")) < 100 * (1 - part) + 25

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("ended", [False, True])
    def test_cuts_of_turned_jpegs(self, tmp_path: Path, orientation: int, ended: bool) -> None:
        """Rows are counted as the file has them, wherever they are after turning."""
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        whole, end = encode("JPEG", exif=exif), END if ended else b""
        cut = len(whole) // 2
        facts = inspect_facts(tmp_path, whole[:cut] + end)
        expected = inspect_facts(tmp_path, FILES["jpeg"][: cut - (len(whole) - len(FILES["jpeg"]))] + end)
        assert expected.findings == ((IMAGE_CUT.name, dict(facts.findings)[IMAGE_CUT.name]),)
        assert "% of the rows" in expected.findings[0][1]
        assert kinds(facts) == {IMAGE_CUT.name} | ({IMAGE_TURNED.name} if orientation > 1 else set())

    @pytest.mark.parametrize("kind", ["color", "gray", "cmyk"])
    def test_a_progressive_jpeg_that_ends_behind_one_of_its_scans(self, tmp_path: Path, kind: str) -> None:
        """Nothing of it is gray, and more bytes would change nothing: the scans themselves tell."""
        pixels = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.convert({"color": "RGB", "gray": "L", "cmyk": "CMYK"}[kind]).save(buffer, "JPEG", progressive=True)
        whole = buffer.getvalue()
        assert IMAGE_CUT.name not in kinds(inspect(tmp_path, whole))
        assert not lacks_scans(whole)
        scans = [match.start() for match in re.finditer(rb"\xff\xda", whole)]
        assert len(scans) > 3
        for scan in scans[1:]:
            ended = whole[:scan] + END
            assert lacks_scans(ended)
            assert IMAGE_CUT.name in kinds(inspect(tmp_path, ended))

    def test_the_bytes_of_an_end_inside_a_segment_are_none(self, tmp_path: Path) -> None:
        whole = encode("JPEG", progressive=True)
        start = scan_start(whole)
        assert start is not None
        table = whole.index(b"\xff\xc4", start)
        comment = b"\xff\xfe\0\x06" + END + END
        commented = whole[:table] + comment + whole[table:]
        assert end_position(commented) == len(commented) - 2
        assert kinds(inspect(tmp_path, commented)) == set()
        assert kinds(inspect(tmp_path, commented[:-2])) == {IMAGE_CUT.name}

    def test_less_than_a_hundredth_of_the_rows(self, tmp_path: Path) -> None:
        """Nobody reads that 0% are missing."""
        pixels = np.random.default_rng(4).integers(0, 256, (64, 640, 3), dtype=np.uint8)
        whole = encode("JPEG", pixels, quality=80)
        (finding,) = inspect_facts(tmp_path, whole[:-400] + END).name_findings("a.jpg")
        assert finding.detail == "it ends before its last pixels: bytes amid it are wrong"
        (finding,) = inspect_facts(tmp_path, whole[:-400]).name_findings("a.jpg")
        assert finding.detail == "its last bytes are missing"

    @pytest.mark.parametrize("value", [127, 128, 129])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_gray_of_its_own_is_no_cut(self, tmp_path: Path, value: int, progressive: bool) -> None:
        pixels = PIXELS.copy()
        pixels[40:] = value
        assert kinds(inspect(tmp_path, encode("JPEG", pixels, progressive=progressive))) == set()

    @pytest.mark.parametrize("stop", [0, 2, 20, 200, 500])
    def test_a_jpeg_cut_before_its_pixels_is_an_error(self, tmp_path: Path, stop: int) -> None:
        assert isinstance(inspect(tmp_path, FILES["jpeg"][:stop]), str)

    def test_a_thumbnail_has_an_end_of_its_own(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x9286] = encode("JPEG", PIXELS[:16, :16])
        whole = encode("JPEG", exif=exif)
        assert whole.count(b"\xff\xd9") == 2
        assert kinds(inspect(tmp_path, whole[:-40])) == {IMAGE_CUT.name}

    def test_zeros_at_the_end_of_a_jpeg(self, tmp_path: Path) -> None:
        """As a download that was reserved and not finished."""
        whole = FILES["jpeg"]
        assert IMAGE_CUT.name in kinds(inspect(tmp_path, whole[:-600] + bytes(600)))

    def test_a_second_image_behind_the_first_may_be_cut(self, tmp_path: Path) -> None:
        file = FILES["mpo"]
        facts = inspect(tmp_path, file[: len(file) - 300])
        assert isinstance(facts, ImageFacts)
        assert kinds(facts) == set()
        assert same(pixels_of(file[:-300]), pixels_of(file))


def test_first_frames_of_animations(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        frames[0].save(file, file_format, save_all=True, append_images=frames[1:])
        facts = inspect(tmp_path, file.getvalue())
        assert "image_animated" in kinds(facts), file_format
        assert read_image(tmp_path / "image")[0, 0, 0] > 240
