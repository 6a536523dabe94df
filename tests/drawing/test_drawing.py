"""Boxes on images: where lines and labels lie, and what must not break them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.data.records import Record
from boxwright.drawing import DrawingStyle, class_color, draw_detections, draw_ground_truth, ground_truth
from boxwright.drawing import detections as detections_module
from boxwright.drawing.colors import letter_color, relative_luminance
from boxwright.ops.masks import encode_mask
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

GRAY = np.full((200, 300, 3), 128, dtype=np.uint8)
PLAIN = DrawingStyle(legend=False)
CATEGORIES = (Category(1, "cell"), Category(5, "x" * 500), Category(9, "细胞 🧫 Zelle\n\tß"))


def make_detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def record(boxes_xywh: list[list[float]], labels: list[int], crowd: list[bool]) -> Record:
    bbox = np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return Record(
        image_id=1,
        path=Path("a.png"),
        height=200,
        width=300,
        labels=np.array(labels, dtype=np.int64),
        bbox_xywh=bbox,
        area=bbox[:, 2] * bbox[:, 3],
        crowd=np.array(crowd, dtype=bool),
        annotation_ids=tuple(range(len(labels))),
    )


def test_a_box_colors_its_edges_and_nothing_else() -> None:
    image = np.asarray(
        draw_detections(GRAY, make_detections([[50, 60, 150, 160]], [0.9], [0]), CATEGORIES, threshold=0.5)
    )
    changed = (image != 128).any(2)
    color = np.array(class_color(0))
    for edge in (image[60, 50:150], image[159, 50:150], image[60:160, 50], image[60:160, 149]):
        assert (edge == color).all()
    assert not changed[61:159, 51:149].any()
    assert not changed[160:].any()
    assert not changed[:, :50].any()
    assert not changed[60:, 150:].any()
    # The label lies on the box's top edge and is as high as one line of text.
    rows = np.flatnonzero(changed[:60].any(1))
    assert rows[-1] == 59
    assert 10 <= len(rows) <= 18
    assert changed[rows[0] : 60, 50].all()


def masked(*masks: torch.Tensor) -> Detections:
    boxes = [[50.0, 60, 150, 160]] * len(masks)
    scores = [0.9 - 0.1 * i for i in range(len(masks))]
    detections = make_detections(boxes, scores, list(range(len(masks))))
    return replace(detections, masks=tuple(encode_mask(mask) for mask in masks))


def disc() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(300), indexing="ij")
    return (rows - 110) ** 2 + (columns - 100) ** 2 < 40**2


def test_a_mask_is_tinted_inside_its_edge_and_nothing_else() -> None:
    image = np.asarray(draw_detections(GRAY, masked(disc()), CATEGORIES, threshold=0.5)).astype(int)
    mask, color = disc().numpy(), np.array(class_color(0))
    inside = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    assert (image[mask & ~inside] == color).all()
    assert np.abs(image[inside] - (0.6 * 128 + 0.4 * color)).max() <= 1
    within = np.zeros_like(mask)
    within[62:158, 52:148] = True  # inside the box's lines
    assert (image[within & ~mask] == 128).all()
    without = np.asarray(draw_detections(GRAY, replace(masked(disc()), masks=None), CATEGORIES, threshold=0.5))
    assert (image[~mask] == without[~mask]).all()


def test_masks_lie_below_boxes_and_stronger_ones_on_top() -> None:
    everywhere = torch.ones(200, 300, dtype=torch.bool)
    both = np.asarray(draw_detections(GRAY, masked(disc(), everywhere), CATEGORIES, threshold=0.5)).astype(int)
    assert (both[159, 60:140] == class_color(0)).all()
    behind = 0.6 * 128 + 0.4 * np.array(class_color(1))
    assert np.abs(both[110, 100] - (0.6 * behind + 0.4 * np.array(class_color(0)))).max() <= 2
    weak = np.asarray(draw_detections(GRAY, masked(disc(), everywhere), CATEGORIES, threshold=0.85))
    assert (weak[5, 5] == 128).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_masks_grow_with_the_image(scale: float) -> None:
    image = np.asarray(draw_detections(GRAY, masked(disc()), CATEGORIES, threshold=0.5, scale=scale))
    tinted = (image != 128).any(2)
    row = round(110 * scale)
    columns = np.flatnonzero(tinted[row, round(54 * scale) : round(146 * scale)]) + round(54 * scale)
    assert abs(columns[0] - 61 * scale) <= scale
    assert abs(columns[-1] + 1 - 140 * scale) <= scale


def test_a_mask_of_no_pixel_draws_nothing() -> None:
    empty = torch.zeros(200, 300, dtype=torch.bool)
    with_mask = draw_detections(GRAY, masked(empty), CATEGORIES, threshold=0.5)
    without = draw_detections(GRAY, replace(masked(empty), masks=None), CATEGORIES, threshold=0.5)
    assert np.array_equal(np.asarray(with_mask), np.asarray(without))


def test_masks_of_the_ground_truth() -> None:
    annotated = replace(
        record([[60, 70, 80, 80], [10, 10, 30, 30]], [0, 0], [False, False]),
        segmentations=([[60.0, 70, 140, 70, 140, 150, 60, 150]], None),
    )
    plain = np.asarray(draw_ground_truth(GRAY, annotated, CATEGORIES)).astype(int)
    masks = np.asarray(draw_ground_truth(GRAY, annotated, CATEGORIES, with_masks=True)).astype(int)
    assert (plain[110, 100] == 128).all()
    assert np.abs(masks[110, 100] - (0.6 * 128 + 0.4 * np.array(class_color(0)))).max() <= 1
    assert (masks[20, 20] == 128).all()


def test_masks_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a hundred objects of 24 million pixels would need 2.4 GB."""
    made: list[weakref.ref[Any]] = []

    def watched(make: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            assert all(mask() is None for mask in made)
            mask = make(*args)
            made.append(weakref.ref(mask))
            return mask

        return call

    for module, name in ((detections_module, "decode_rle"), (ground_truth, "decode_image_mask")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    draw_detections(GRAY, masked(disc(), disc(), disc()), CATEGORIES, threshold=0.75)
    assert len(made) == 2
    square = [[60.0, 70, 140, 70, 140, 150, 60, 150]]
    annotated = replace(record([[60, 70, 80, 80]] * 3, [0] * 3, [False] * 3), segmentations=(square, None, square))
    draw_ground_truth(GRAY, annotated, CATEGORIES, with_masks=True)
    assert len(made) == 4


def test_the_callers_image_stays_as_it_is() -> None:
    image = GRAY.copy()
    draw_detections(image, make_detections([[50, 60, 150, 160]], [0.9], [0]), CATEGORIES, threshold=0.5)
    draw_ground_truth(image, record([[50, 60, 100, 100]], [0], [False]), CATEGORIES)
    assert (image == 128).all()


def test_the_threshold_itself_is_drawn_and_less_is_not() -> None:
    detections = make_detections([[10, 50, 60, 90], [110, 50, 160, 90]], [0.5, 0.25], [0, 0])
    image = np.asarray(draw_detections(GRAY, detections, CATEGORIES, threshold=0.5))
    assert (image[50:90, 10] == class_color(0)).all()
    assert (image[:, 100:] == 128).all()


def test_no_detections_are_the_image_itself() -> None:
    assert (np.asarray(draw_detections(GRAY, make_detections([], [], []), CATEGORIES, threshold=0.5)) == 128).all()
    assert (np.asarray(draw_ground_truth(GRAY, record([], [], []), CATEGORIES)) == 128).all()


def test_the_better_of_two_boxes_lies_on_top() -> None:
    boxes = [[50.0, 60.0, 150.0, 160.0]] * 2
    image = np.asarray(draw_detections(GRAY, make_detections(boxes, [0.9, 0.8], [0, 1]), CATEGORIES, threshold=0.5))
    assert (image[159, 50:150] == class_color(0)).all()


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 300, 200],
        [0, 0, 1, 1],
        [299.6, 199.7, 300, 200],
        [-40, -40, 900, 900],
        [290, 0, 300, 200],
        [20, 30, 20, 30],
        [0, 190, 300, 200],
    ],
)
def test_boxes_at_the_border_and_odd_names(box: list[float], label: int) -> None:
    image = draw_detections(GRAY, make_detections([box], [0.75], [label]), CATEGORIES, threshold=0.5, style=PLAIN)
    assert image.size == (300, 200)
    array = np.asarray(image)
    x = min(max(round(box[0]), 0), 299)
    y = min(max(round(box[1]), 0), 199)
    corner = array[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].reshape(-1, 3)
    assert (corner == class_color(label)).all(1).any()
    ground_truth = record([[box[0], box[1], box[2] - box[0], box[3] - box[1]]], [label], [True])
    assert draw_ground_truth(GRAY, ground_truth, CATEGORIES, style=PLAIN).size == (300, 200)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (12, 12)])
def test_tiny_images(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    detections = make_detections([[0, 0, size[1], size[0]]], [1.0], [1])
    drawn = draw_detections(image, detections, CATEGORIES, threshold=0.5, style=PLAIN)
    assert drawn.size == (size[1], size[0])
    with_legend = draw_detections(image, detections, CATEGORIES, threshold=0.5)
    assert with_legend.width >= 100
    assert (np.asarray(with_legend)[: size[0], : size[1]] == np.asarray(drawn)).all()


def test_labels_of_neighbors_do_not_cover_each_other() -> None:
    boxes = [[100.0, 80.0, 200.0, 180.0], [102.0, 81.0, 202.0, 181.0]]
    both = make_detections(boxes, [0.9, 0.9], [0, 2])
    image = np.asarray(draw_detections(GRAY, both, CATEGORIES, threshold=0.5))
    # The first stays above the box: no pixel of it has the color of the second.
    above = image[60:79, 100:160].reshape(-1, 3)
    assert (above == class_color(0)).all(1).sum() > 250
    assert not (above == class_color(2)).all(1).any()


def test_ground_truth_is_dashed_and_a_crowd_is_dotted() -> None:
    def share_and_runs(crowd: bool) -> tuple[float, int]:
        image = np.asarray(draw_ground_truth(GRAY, record([[50, 60, 200, 100]], [0], [crowd]), CATEGORIES))
        drawn = (image[159, 50:250] == class_color(0)).all(1)
        return float(drawn.mean()), int((np.diff(drawn.astype(int)) == 1).sum()) + int(drawn[0])

    dashed, crowd = share_and_runs(False), share_and_runs(True)
    assert dashed[0] == pytest.approx(0.5, abs=0.05)
    # 25 dashes of 4 pixels, and the corner where the bottom and right edges meet.
    assert dashed[1] == 26
    assert crowd == (0.5, 100)


def test_scale_resizes_the_image_before_the_lines() -> None:
    image = np.full((50, 60, 3), 128, dtype=np.uint8)
    detections = make_detections([[10, 20, 40, 40]], [0.9], [0])
    drawn = np.asarray(draw_detections(image, detections, CATEGORIES, threshold=0.5, scale=4.0))
    assert drawn.shape == (200, 240, 3)
    assert (drawn[80:160, 40] == class_color(0)).all()
    assert (drawn[82:158, 42:158] == 128).all()
    half = draw_detections(image, detections, CATEGORIES, threshold=0.5, scale=0.5, style=PLAIN)
    assert half.size == (30, 25)


def test_lines_and_letters_grow_with_the_image() -> None:
    large = np.full((1600, 1600, 3), 128, dtype=np.uint8)
    detections = make_detections([[400, 400, 1200, 1200]], [0.9], [0])
    image = np.asarray(draw_detections(large, detections, CATEGORIES, threshold=0.5))
    assert (image[800, 400:410] == class_color(0)).all()
    assert (image[800, 410:1190] == 128).all()


def test_24_colors_are_distinct() -> None:
    colors = [class_color(label) for label in range(24)]
    assert len(set(colors)) == 24
    assert class_color(24) == colors[0]
    lab = np.array([to_lab(color) for color in colors])
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(24)
    assert distances.min() >= 18


def to_lab(color: tuple[int, int, int]) -> np.ndarray:
    """CIELAB of an sRGB color: in it, a distance of 2 to 3 can just be seen side by side."""
    values = np.array(color) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / (0.9505, 1.0, 1.0888), 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_letters_have_contrast_on_every_color() -> None:
    for color in [*map(class_color, range(24)), (118, 118, 118), (0, 0, 0), (255, 255, 255)]:
        light, dark = sorted(map(relative_luminance, (color, letter_color(color))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color


def test_standard_deviations_are_bars_across_the_middle_of_each_side() -> None:
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    std = torch.tensor([[3.0, 5.0, 7.0, 9.0]])
    plain = Detections(torch.tensor([[20.0, 20, 61, 41]]), torch.tensor([0.9]), torch.tensor([0]))
    style = DrawingStyle(labels="none", line_width=1)
    drawn = [
        np.asarray(draw_detections(image, one, (), threshold=0.0, style=style)).any(-1)
        for one in (plain, replace(plain, sides_std=std))
    ]
    added = drawn[1] & ~drawn[0]
    row, column = 30, 40  # the middle of the box
    assert np.flatnonzero(drawn[1][row]).tolist() == [*range(17, 24), *range(53, 68)]
    assert np.flatnonzero(drawn[1][:, column]).tolist() == [*range(15, 26), *range(31, 50)]
    assert not added[:13].any()
    assert not added[51:].any()
