"""Network inputs beside other projects' processors: sizes over many shapes, and normalized, padded pixels."""

from __future__ import annotations

import zlib
from itertools import product

import numpy as np
import pytest
import torch
from effdet.data.transforms import ResizePad, resolve_fill_color
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from transformers import DetrImageProcessor, RTDetrImageProcessor
from transformers.image_transforms import get_size_with_aspect_ratio

from boxwright.data.images import normalize, pad_inputs, resample
from boxwright_runtime.input_format import InputFormat, Resampling, ResizeRule, Window
from boxwright_runtime.size_rules import letterbox_size
from conformance import compare_equal, compare_tensors, note_inputs
from weights.source_checks import draw_images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The maximal size binds for the third and the last; the fourth is larger than its input; the fifth smaller.
SHAPES = ((250, 310), (333, 190), (150, 420), (500, 730), (64, 64), (97, 401))
SIDES = (1, 7, 37, 240, 333, 426, 427, 480, 500, 640, 799, 800, 801, 1280, 1333, 2400)
LIMITS = ((800, 1333), (480, 1333), (600, 1000), (64, 96))

TRANSFORMERS = InputFormat(
    image_size=240, resize="shortest_side", max_size=400, mean=MEAN, std=STD, size_rule="transformers"
)
TORCHVISION = InputFormat(
    image_size=240,
    resize="shortest_side",
    max_size=400,
    mean=MEAN,
    std=STD,
    size_rule="torchvision",
    antialias=False,
    resize_floats=True,
    pad_multiple=32,
)
LETTERBOX = InputFormat(image_size=256, resize="letterbox", mean=MEAN, std=STD)


def network_input(image: NDArray[np.uint8], input_format: InputFormat) -> Tensor:
    height, width = image.shape[:2]
    size = input_format.input_size(height, width)
    window = input_format.window(height, width)
    pixels = normalize(resample(image, window, *size, resampling=input_format.resampling), input_format)
    return pad_inputs([pixels], *input_format.padded_size(*size), input_format)[0][0]


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class TestSizes:
    @pytest.mark.conforms("preprocessing", "transformers")
    @pytest.mark.parametrize("limits", LIMITS)
    def test_transformers(self, limits: tuple[int, int]) -> None:
        rule = ResizeRule(limits[0], "shortest_side", limits[1], "transformers")
        compared = 0
        note_inputs(*(torch.empty(1, *shape, device="meta") for shape in product(SIDES, SIDES)))
        for height, width in product(SIDES, SIDES):
            theirs = get_size_with_aspect_ratio((height, width), *limits)
            if 0 not in theirs:
                compare_equal("outputs", rule.input_size(height, width), theirs, name="sizes")
                compared += 1
        assert compared > 200

    def test_transformers_differs_from_detr_where_the_maximal_size_binds(self) -> None:
        rules = [ResizeRule(800, "shortest_side", 1333, name) for name in ("detr", "transformers")]
        sizes = [[rule.input_size(480, width) for rule in rules] for width in range(480, 1600)]
        assert all(a == b for a, b in sizes[:319])
        assert sum(a != b for a, b in sizes[320:]) > 300

    @given(height=st.integers(8, 400), width=st.integers(8, 400))
    @settings(max_examples=150, deadline=None)
    def test_torchvision(self, height: int, width: int) -> None:
        theirs, _ = GeneralizedRCNNTransform(80, 133, [0.0], [1.0]).eval()([torch.zeros(1, height, width)])
        rule = ResizeRule(80, "shortest_side", 133, "torchvision", 32)
        assert [rule.input_size(height, width)] == theirs.image_sizes
        assert rule.padded_size(*theirs.image_sizes[0]) == tuple(theirs.tensors.shape[2:])

    # What rescale_size of open-mmlab/mmcv a8073c7 makes of the image.
    @pytest.mark.parametrize(
        ("image", "limits", "expected"),
        [
            ((480, 640), (800, 1333), (800, 1067)),
            ((427, 640), (800, 1333), (800, 1199)),
            ((640, 427), (800, 1333), (1199, 800)),
            ((333, 500), (800, 1333), (800, 1201)),
            ((375, 500), (800, 1333), (800, 1067)),
            ((300, 1200), (800, 1333), (333, 1333)),
            ((1200, 299), (800, 1333), (1333, 332)),
            ((426, 640), (640, 1333), (640, 962)),
            ((2400, 1601), (800, 1333), (1199, 800)),
            ((250, 310), (240, 400), (240, 298)),
            ((150, 420), (240, 400), (143, 400)),
            ((31, 400), (64, 96), (7, 96)),
            ((1, 1), (64, 96), (64, 64)),
        ],
    )
    def test_mmcv(self, image: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]) -> None:
        assert ResizeRule(limits[0], "shortest_side", limits[1], "mmcv").input_size(*image) == expected

    @given(height=st.integers(1, 700), width=st.integers(1, 700), side=st.sampled_from((32, 96, 128)))
    @settings(max_examples=150, deadline=None)
    def test_effdet(self, height: int, width: int, side: int) -> None:
        ours = letterbox_size(height, width, side)
        if min(height, width) * side >= max(height, width):  # else theirs has no pixel
            padded, _ = ResizePad(side, fill_color=(1, 1, 1))(Image.new("RGB", (width, height)), {})
            shown = pixels_of(padded)[0] == 0
            assert ours == (int(shown.any(1).sum()), int(shown.any(0).sum()))
        assert max(ours) in (side - 1, side)
        assert ResizeRule(side, "letterbox").padded_size(*ours) == (side, side)


class TestPixels:
    """Largest difference measured: in brackets."""

    @pytest.mark.conforms("preprocessing", "transformers")
    @pytest.mark.parametrize("index", range(len(SHAPES)))
    def test_transformers(self, index: int) -> None:
        """As DETR (2.4e-7) and RT-DETR (6e-8) do, where normalized colors have a range of 4.8 and of 1."""
        image = draw_images(SHAPES)[index]
        detr = DetrImageProcessor(size={"shortest_edge": 240, "longest_edge": 400})
        rtdetr = RTDetrImageProcessor(size={"height": 256, "width": 256})
        for processor, input_format in ((detr, TRANSFORMERS), (rtdetr, InputFormat(image_size=256))):
            theirs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
            note_inputs(theirs[None])
            compare_tensors("outputs", network_input(image, input_format), theirs, limit=5e-7)

    @pytest.mark.conforms("preprocessing", "torchvision")
    @pytest.mark.parametrize("index", range(len(SHAPES)))
    def test_torchvision(self, index: int) -> None:
        """Resized after normalizing there, before it here: the same but for float32 (7e-7)."""
        image = draw_images(SHAPES)[index]
        transform = GeneralizedRCNNTransform(240, 400, list(MEAN), list(STD)).eval()
        theirs, _ = transform([torch.from_numpy(image).permute(2, 0, 1) / 255])
        note_inputs(theirs.tensors)
        compare_tensors("outputs", network_input(image, TORCHVISION), theirs.tensors[0], limit=2e-6)

    @pytest.mark.conforms("preprocessing", "effdet")
    @pytest.mark.parametrize("index", range(len(SHAPES)))
    def test_effdet(self, index: int) -> None:
        """Pillow's rounding differs from torchvision's by one level in 0.2 % of the pixels; padding is equal (2e-7)."""
        image = draw_images(SHAPES)[index]
        padded, _ = ResizePad(256, fill_color=resolve_fill_color("mean", MEAN))(Image.fromarray(image), {})
        # As its loader does, which needs a GPU.
        mean, std = ((255 * torch.tensor(values))[:, None, None] for values in (MEAN, STD))
        ours, theirs = network_input(image, LETTERBOX), (pixels_of(padded).float() - mean) / std
        note_inputs(ours[None])
        compare_tensors("outputs", ours, theirs, limit=1.001 / 255 / min(STD))
        difference = (ours - theirs).abs()
        rows, columns = LETTERBOX.input_size(*image.shape[:2])
        assert (difference > 1e-6).float().mean() < 0.004
        shown = torch.zeros_like(difference, dtype=torch.bool)
        shown[:, :rows, :columns] = True
        assert difference[~shown].sum() < 1e-6 * difference.numel()

    # Sizes, checksums and the middle pixel of cv2.resize (opencv-python-headless 5.0.0, INTER_LINEAR) of ``drawn``.
    @pytest.mark.parametrize(
        ("size", "checksum", "middle"),
        [
            ((30, 42), 3770610137, [80, 145, 94]),
            ((120, 100), 3034833016, [223, 138, 57]),
            ((23, 41), 1929262362, [200, 150, 127]),
            ((60, 84), 3289241318, [236, 178, 46]),
            ((7, 5), 2457121652, [200, 150, 127]),
            ((31, 168), 3974359795, [208, 120, 84]),
        ],
    )
    def test_opencv_to_the_bit(self, size: tuple[int, int], checksum: int, middle: list[int]) -> None:
        y, x = np.mgrid[:60, :84]
        image = np.stack([(x * y) % 256, (7 * x + 3 * y * y) % 256, (x * x + 11 * y) % 256], -1).astype(np.uint8)
        ours = resample(image, Window.whole(60, 84), *size, resampling=Resampling(antialias=False)).permute(1, 2, 0)
        assert ours[size[0] // 2, size[1] // 2].tolist() == middle
        assert zlib.crc32(ours.contiguous().numpy().tobytes()) == checksum
        rounded = resample(image, Window.whole(60, 84), *size, resampling=Resampling(antialias=False, floats=True))
        assert (ours.permute(2, 0, 1) - rounded).abs().max() < 1.0
