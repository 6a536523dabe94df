"""Detections of an image's tiles as those of the image: what several tiles see of one object is joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from boxwright_runtime.arrays import like, to_numpy
from boxwright_runtime.detections import Detections
from boxwright_runtime.masks import decode_rle, encode_part
from boxwright_runtime.structures import RLE
from boxwright_runtime.tiles import Tile

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

AGREEMENT = 0.5
"""Least IoU of two boxes, in what both of their tiles see, that are of one object."""

_AT_BORDER = 0.01
"""A side that is as near to its tile's border, as a fraction of the tile's side, is where the tile cuts the object."""


class _Parts(NamedTuple):
    """All detections of tiles: a row for each detection of each tile.

    Args:
        boxes: corners in pixels of the image.
        scores: in [0, 1].
        labels: 0..C-1.
        tile: that each is from.
        cut: whether the tile cuts the object at (x1, y1, x2, y2).
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    tile: Int[np.ndarray, " n"]
    cut: Bool[np.ndarray, "n 4"]


def join_tiles(tiles: Sequence[Tile], detections: Sequence[Detections], size: tuple[int, int]) -> Detections:
    """Join the detections of tiles.

    Two boxes of different tiles and of one class are of one object if they agree in what both tiles see, at an IoU of
    0.5; boxes that end where tiles meet agree along the border. Each tile sees an object once, so that the pairs
    that agree best are joined first, and no two boxes of one tile. Of the boxes of an object the best one that no tile
    cuts is taken, or else each side from a tile that does not cut it. A box that another tile sees better, because
    that does not cut it, counts only where that tile has it too. The same holds for the view of the whole image, whose
    boxes are for objects that no tile holds. Nothing else is left out: what one tile sees by itself stays.

    Args:
        tiles: of the image; one that is as large as the image is the view of the whole.
        detections: of each, in pixels of the tile.
        size: (height, width) of the image in pixels.

    Returns:
        detections in pixels of the image, best first, of the kind that they have in the tiles: tensors or arrays.
    """
    corners = np.array(tiles, dtype=np.float64).reshape(-1, 4)
    is_whole = (corners == (0, 0, size[1], size[0])).all(1) & (len(tiles) > 1)
    parts = _place(corners, detections, size)
    valid = np.ones(len(parts.scores), dtype=np.bool_)
    of_whole = is_whole[parts.tile]
    valid[of_whole] = ~_inside(parts.boxes[of_whole], corners[~is_whole]).any(1)
    objects = _join(parts, valid, corners)
    kept = [members for members in objects if not _seen_better(members, parts, corners, is_whole)]
    chosen = [_choose_sides(members, parts, is_whole) for members in kept]
    return _collect(kept, chosen, parts, tiles, detections, size)


def _place(corners: Float[np.ndarray, "t 4"], detections: Sequence[Detections], size: tuple[int, int]) -> _Parts:
    """Move the boxes of tiles to where they are in the image."""
    tile = np.repeat(np.arange(len(detections)), [len(one) for one in detections])
    boxes, scores, labels = (
        np.concatenate([to_numpy(getattr(one, name)) for one in detections]) for name in ("boxes", "scores", "labels")
    )
    boxes = boxes.reshape(-1, 4).astype(np.float64) + corners[tile][:, [0, 1, 0, 1]]
    sides = corners[:, 2:] - corners[:, :2]
    near = _AT_BORDER * np.concatenate((sides, sides), 1)[tile]
    inner = corners != np.array((0, 0, size[1], size[0]))
    return _Parts(boxes, scores, labels, tile, inner[tile] & (np.abs(boxes - corners[tile]) <= near))


def _inside(boxes: Float[np.ndarray, "n 4"], corners: Float[np.ndarray, "t 4"]) -> Bool[np.ndarray, "n t"]:
    """Tell which boxes lie inside of which tiles."""
    starts = (boxes[:, None, :2] >= corners[:, :2]).all(2)
    ends = (boxes[:, None, 2:] <= corners[:, 2:]).all(2)
    return np.asarray(starts & ends)


def _join(parts: _Parts, valid: Bool[np.ndarray, " n"], corners: Float[np.ndarray, "t 4"]) -> list[list[int]]:
    """Join parts of one object: lists of rows, each with one part of a tile at most."""
    rows = np.flatnonzero(valid)
    by_tile = np.split(rows, np.searchsorted(parts.tile[rows], np.arange(1, len(corners))))
    pairs = [
        _agreeing(by_tile[one], by_tile[other], parts, corners[one], corners[other])
        for one, other in _neighbors(corners)
        if len(by_tile[one]) and len(by_tile[other])
    ]
    members = {row: [row] for row in rows.tolist()}
    owner = {row: row for row in members}
    if pairs:
        first, second, agreement = (np.concatenate(each) for each in zip(*pairs, strict=True))
        # Boxes of equal agreement belong together if their scores are high, and equal: of two objects that look the
        # same where tiles meet, each has a score of its own.
        priority = agreement * np.sqrt(parts.scores[first] * parts.scores[second])
        for pair in np.argsort(-priority, kind="stable"):
            one, other = owner[int(first[pair])], owner[int(second[pair])]
            tiles = [set(parts.tile[members[row]].tolist()) for row in (one, other)]
            if one != other and not tiles[0] & tiles[1]:
                for row in members[other]:
                    owner[row] = one
                members[one] += members.pop(other)
    return list(members.values())


def _neighbors(corners: Float[np.ndarray, "t 4"]) -> list[tuple[int, int]]:
    """List the pairs of tiles that overlap or touch each other; those that share most come first."""
    start = np.maximum(corners[:, None, :2], corners[None, :, :2])
    shared = np.minimum(corners[:, None, 2:], corners[None, :, 2:]) - start
    one, other = np.nonzero(np.triu((shared >= 0).all(2), 1))
    order = np.argsort(-shared.prod(2)[one, other], kind="stable")
    return [(int(one[i]), int(other[i])) for i in order]


def _agreeing(
    one: Int[np.ndarray, " n"],
    other: Int[np.ndarray, " m"],
    parts: _Parts,
    tile: Float[np.ndarray, " 4"],
    neighbor: Float[np.ndarray, " 4"],
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """List pairs of parts of two tiles that agree in what both see, and their IoU there."""
    low, high = np.maximum(tile[:2], neighbor[:2]), np.minimum(tile[2:], neighbor[2:])
    (a, a_length), (b, b_length) = (_clip(parts.boxes[rows], low, high) for rows in (one, other))
    common = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    for axis in np.flatnonzero(high == low):
        # Tiles that only touch each other see no pixel in common: along this axis both must end there.
        a_end, b_end = (2 + axis, axis) if tile[2 + axis] == low[axis] else (axis, 2 + axis)
        common[..., axis] = parts.cut[one, a_end][:, None] & parts.cut[other, b_end][None]
        a_length[:, axis] = b_length[:, axis] = 1
    overlap = common.clip(0).prod(2)
    areas = a_length.prod(1)[:, None] + b_length.prod(1)[None] - overlap
    agreement = overlap / np.maximum(areas, 1e-9)
    of_one_class = parts.labels[one][:, None] == parts.labels[other][None]
    rows, columns = np.nonzero(of_one_class & (agreement >= AGREEMENT))
    return one[rows], other[columns], agreement[rows, columns]


def _clip(
    boxes: Float[np.ndarray, "n 4"], low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n 2"]]:
    """Clip boxes to a region; their sides there are 0 where they lie outside."""
    clipped = np.concatenate((np.maximum(boxes[:, :2], low), np.minimum(boxes[:, 2:], high)), 1)
    return clipped, (clipped[:, 2:] - clipped[:, :2]).clip(0)


def _seen_better(
    members: Sequence[int], parts: _Parts, corners: Float[np.ndarray, "t 4"], is_whole: Bool[np.ndarray, " t"]
) -> bool:
    """Tell whether a part that stayed alone lies where another tile would have seen it without a cut, and did not."""
    box, cut = parts.boxes[members[0]], parts.cut[members[0]]
    if len(members) > 1 or not cut.any():
        return False
    sides = corners[:, 2:] - corners[:, :2]
    room = np.concatenate((box[:2] - corners[:, :2], corners[:, 2:] - box[2:]), 1)
    beyond = (room > _AT_BORDER * np.concatenate((sides, sides), 1)) | ~cut
    return bool(((room >= 0).all(1) & beyond.all(1) & ~is_whole).any())


def _choose_sides(members: Sequence[int], parts: _Parts, is_whole: Bool[np.ndarray, " t"]) -> list[int]:
    """Choose the part that each side (x1, y1, x2, y2) of an object is taken from."""
    best_first = sorted(members, key=lambda row: (bool(is_whole[parts.tile[row]]), -parts.scores[row]))
    uncut = [row for row in best_first if not parts.cut[row].any()]
    if uncut and not is_whole[parts.tile[uncut[0]]]:
        return [uncut[0]] * 4
    chosen = []
    for side, sign in enumerate((1, 1, -1, -1)):
        seen = [row for row in best_first if not parts.cut[row, side]]
        chosen.append(seen[0] if seen else min(members, key=lambda row: sign * parts.boxes[row, side]))
    return chosen


def _collect(
    objects: Sequence[Sequence[int]],
    chosen: Sequence[Sequence[int]],
    parts: _Parts,
    tiles: Sequence[Tile],
    detections: Sequence[Detections],
    size: tuple[int, int],
) -> Detections:
    """Make detections of the image, best first."""
    first = detections[0]
    scores = np.array([parts.scores[list(members)].max() for members in objects], dtype=parts.scores.dtype)
    order = np.argsort(-scores, kind="stable")
    sides = np.array([chosen[i] for i in order], dtype=np.int64).reshape(-1, 4)
    labels = parts.labels[sides[:, 0]]
    masks = None
    if first.masks is not None:
        of_part = [mask for one in detections for mask in one.masks or ()]
        masks = tuple(_unite_masks(objects[i], chosen[i], parts, tiles, of_part, size) for i in order)
    std = None
    if first.sides_std is not None:
        of_sides = np.concatenate([to_numpy(one.sides_std).reshape(-1, 4) for one in detections])
        std = like(np.take_along_axis(of_sides, sides, 0), first.sides_std)
    boxes = like(np.take_along_axis(parts.boxes, sides, 0), first.boxes)
    return replace(
        first,
        boxes=boxes,
        scores=like(scores[order], first.scores),
        labels=like(labels, first.labels),
        masks=masks,
        sides_std=std,
    )


def _unite_masks(
    members: Sequence[int],
    chosen: Sequence[int],
    parts: _Parts,
    tiles: Sequence[Tile],
    masks: Sequence[RLE],
    size: tuple[int, int],
) -> RLE:
    """Unite the masks of an object's parts; of one that was seen whole, take its mask."""
    rows = [chosen[0]] if len(set(chosen)) == 1 else list(members)
    corners = np.array([tiles[parts.tile[row]] for row in rows])
    (left, top), (right, bottom) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    united = np.zeros((bottom - top, right - left), dtype=np.bool_)
    for row in rows:
        tile = tiles[parts.tile[row]]
        united[tile.top - top : tile.bottom - top, tile.left - left : tile.right - left] |= decode_rle(masks[row])
    return encode_part(united, (top, left), size)
