"""Files of drawings: equal to the drawing, and written fast."""

from __future__ import annotations

import base64
import errno
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.drawing import DrawingQueue, DrawingStyle, draw_detections, drawing_uri, save_drawing, save_drawings
from boxwright.drawing.png import encode_png
from boxwright.structures import Category
from boxwright_runtime.detections import Detections
from live_threads import list_threads


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


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (33, 21)])
def test_png_of_any_size(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        assert np.array_equal(np.asarray(image), pixels)


def test_no_half_of_a_new_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_drawing(textured(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_queue_writes_what_one_by_one_would(tmp_path: Path) -> None:
    gray = np.full((60, 80, 3), 128, dtype=np.uint8)
    one = Detections(torch.tensor([[10.0, 20, 50, 50]]), torch.tensor([0.9]), torch.tensor([0]), None, ())
    with DrawingQueue() as queue:
        for index in range(12):
            queue.draw(gray + np.uint8(index), one, tmp_path / f"{index % 3}" / f"{index}.png")
            assert len(queue) <= 5
    assert not list_threads("drawing")
    for index in range(12):
        with Image.open(tmp_path / f"{index % 3}" / f"{index}.png") as image:
            expected = draw_detections(gray + np.uint8(index), one, (), threshold=0.0)
            assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    gray = np.full((60, 80, 3), 128, dtype=np.uint8)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), None, ())
    (tmp_path / "taken.png").mkdir()

    def draw_all() -> None:
        with DrawingQueue() as queue:
            for name in ("a.png", "taken.png", "b.png"):
                queue.draw(gray, none, tmp_path / name)

    with pytest.raises(ValueError, match=r"taken\.png cannot be written: it is a folder"):
        draw_all()
    assert (tmp_path / "a.png").is_file()
    assert not list_threads("drawing")


def test_another_error_waits_for_the_drawings_before_it(tmp_path: Path) -> None:
    gray = np.full((600, 800, 3), 128, dtype=np.uint8)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), None, ())

    def draw_until_interrupted() -> None:
        with DrawingQueue() as queue:
            for index in range(4):
                queue.draw(gray, none, tmp_path / f"{index}.png")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_until_interrupted()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert not list_threads("drawing")


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
