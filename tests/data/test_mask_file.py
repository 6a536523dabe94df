"""Masks that are PNG files, one for each object: the same as if the annotation file had their run lengths."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from boxwright.data.crop import Crop
from boxwright.data.mask_file import MaskFile
from boxwright.data.masks import check_masks, decode_image_masks, render_record_masks
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.ops.masks import encode_mask
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import Window
from boxwright_runtime.masks import to_json

SIZES = {11: (30, 40), 5: (50, 20)}
"""Height and width of the tiny set's images with objects, by id."""


def shape(height: int, width: int, seed: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((rows - height / 2) / (5 + seed)) ** 2 + ((columns - 8 - seed) / 7) ** 2 < 1


def save(mask: Tensor, path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.numpy().astype(np.uint8) * value).save(path)


@pytest.fixture
def both(tiny) -> tuple[DetectionData, DetectionData]:
    """The tiny set with masks in files, in both places and with other values than 255, and with run lengths."""
    tiny.write()
    folders = (tiny.root / "images", tiny.root / "annotations", tiny.root / "images")
    masks = [shape(*SIZES[a["image_id"]], a["id"]) for a in tiny.document["annotations"]]
    for annotation, mask, folder in zip(tiny.document["annotations"], masks, folders, strict=True):
        name = f"masks/{annotation['id']}.png"
        save(mask, folder / name, value=annotation["id"])
        annotation["segmentation"] = name
    files = tiny.read()
    for annotation, mask in zip(tiny.document["annotations"], masks, strict=True):
        annotation["segmentation"] = to_json(encode_mask(mask))
    return files, tiny.read()


def test_training_sees_what_it_sees_of_run_lengths(both: tuple[DetectionData, DetectionData]) -> None:
    check_masks(both[0], crowds=True)
    for files, packed in zip(both[0].records, both[1].records, strict=True):
        chosen = list(range(len(files.labels)))
        for crop in (
            Crop(Window.whole(files.height, files.width), (files.height, files.width)),
            Crop(Window(-3.0, 2.0, 25.0, 27.0), (50, 45), flip_x=True),
        ):
            masks = render_record_masks(files, chosen, crop)
            assert torch.equal(masks, render_record_masks(packed, chosen, crop))
            assert masks.flatten(1).any(1).all()
    assert torch.equal(decode_image_masks(both[0].records[0])[0], shape(30, 40, 1))


def test_evaluation_says_what_it_says_of_run_lengths(both: tuple[DetectionData, DetectionData]) -> None:
    actual = {}
    for record in both[1].records:
        # Nearly the objects, so that the numbers are neither 0 nor 1.
        masks = tuple(encode_mask(mask.roll(1, 0)) for mask in decode_image_masks(record))
        boxes = torch.from_numpy(record.boxes())
        actual[record.image_id] = Detections(boxes, torch.ones(len(masks)), torch.from_numpy(record.labels), masks)
    of_files, of_packed = (evaluate_detections(data, actual, iou_type="segm") for data in both)
    assert of_files == of_packed
    assert 0.2 < of_files.AP < 0.9


def test_a_file_is_read_once(both: tuple[DetectionData, DetectionData], tiny) -> None:
    data = both[0]
    check_masks(data, crowds=True)
    for path in tiny.root.rglob("masks/*.png"):
        path.unlink()
    record = pickle.loads(pickle.dumps(data.records[0]))  # as a loader's workers get it
    assert torch.equal(decode_image_masks(record)[0], shape(30, 40, 1))


def test_nothing_is_read_where_nobody_wants_masks(tiny) -> None:
    for annotation in tiny.document["annotations"]:
        annotation["segmentation"] = "absent.png"
    assert len(tiny.read().records) == 3


def declared(image: Image.Image, transparent: Any) -> Image.Image:
    """With colors that the file declares to be transparent."""
    if image.mode == "P":
        image.putpalette(bytes(range(9)))
    image.info["transparency"] = transparent
    return image


KINDS: dict[str, Any] = {
    "two colors": lambda on: Image.fromarray(on),
    "palette": lambda on: Image.fromarray(on.astype(np.uint8), mode="P"),
    "one of 65,535": lambda on: Image.fromarray(on.astype(np.uint16)),
    "blue": lambda on: Image.fromarray(np.stack([0 * on, 0 * on, 3 * on], -1).astype(np.uint8)),
    "opaque on black": lambda on: Image.fromarray(np.stack([*[200 * on] * 3, 0 * on + 255], -1).astype(np.uint8)),
    "opaque on transparent white": lambda on: Image.fromarray(np.stack([0 * on + 255, 255 * on], -1).astype(np.uint8)),
    "palette, one transparent": lambda on: declared(Image.fromarray((2 - on).astype(np.uint8), mode="P"), 2),
    "palette, some transparent": lambda on: declared(
        Image.fromarray((2 - on).astype(np.uint8), mode="P"), b"\x00\x80\x00"
    ),
    "gray, one transparent": lambda on: declared(Image.fromarray((7 - 3 * on).astype(np.uint8)), 7),
    "white, transparent black": lambda on: declared(Image.fromarray((255 * on).astype(np.uint8)), 0),
    "16 bits, one transparent": lambda on: declared(Image.fromarray((700 - on).astype(np.uint16)), 700),
    "colors, one transparent": lambda on: declared(
        Image.fromarray(np.stack([0 * on + 9, 5 + on, 0 * on + 3], -1).astype(np.uint8)), (9, 5, 3)
    ),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(kind: str, tmp_path: Path) -> None:
    mask = shape(30, 40, 1)
    KINDS[kind](mask.numpy() if kind == "two colors" else mask.long().numpy()).save(tmp_path / "a.png")
    assert MaskFile("a.png", (tmp_path,), 30, 40).run_lengths == to_json(encode_mask(mask))


def test_a_mask_is_turned_upright_as_its_image_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    mask = shape(30, 40, 1)
    Image.fromarray(mask.numpy()).save(tmp_path / "a.png", exif=exif)
    assert MaskFile("a.png", (tmp_path,), 40, 30).run_lengths == to_json(encode_mask(mask.rot90(-1).contiguous()))


def wrong(tiny, kind: str) -> None:
    if kind == "absent":
        return
    if kind == "damaged":
        (tiny.root / "images" / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\nxxx")
    elif kind == "empty":
        save(torch.zeros(30, 40, dtype=torch.bool), tiny.root / "images" / "mask.png")
    else:
        save(shape(40, 30, 1), tiny.root / "images" / "mask.png")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", r"there is no mask 'mask\.png' in \S+/images or \S+/annotations; correct it or delete"),
        ("damaged", r"the mask \S+/images/mask\.png cannot be read: .+; correct it"),
        ("turned", r"the mask \S+/mask\.png has 30 x 40 pixels, but its image has 40 x 30; correct it"),
        ("empty", "its segmentation has no pixel in the image; correct it"),
    ],
)
def test_what_is_wrong_is_one_line(tiny, kind: str, message: str) -> None:
    for annotation in tiny.document["annotations"]:
        annotation["segmentation"] = "mask.png"
    file = tiny.write()
    wrong(tiny, kind)
    data = open_data(None, annotations=file, images=tiny.root / "images")
    with pytest.raises(ValueError, match=message) as error:
        check_masks(data)
    assert str(error.value).startswith(f"{file}: annotation 1 of image 'a.png': ")
    assert "\n" not in str(error.value)


def test_a_damaged_mask_is_an_error(tmp_path: Path) -> None:
    save(torch.rand(40, 50) > 0.5, tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read: its chunk b'IDAT' .* wrong checksum"):
        assert MaskFile("a.png", (tmp_path,), 40, 50).run_lengths
