"""A data set of large images as one of tiles, to train on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.tiling import TiledData, TileReader, tile_data
from boxwright.files import write_text
from boxwright.workflows.convert_data import check_data_folder, find_writer
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, DataFiles, all_splits, read_split
from boxwright_runtime.tiles import TileOptions

LISTING = "tiles.json"
"""File beside the data that tells where each tile lies, and which objects were cut."""


@dataclass(frozen=True)
class TiledFolder:
    """A data set of tiles that was written.

    Args:
        folder: where it is, in COCO's layout, with ``LISTING``.
        splits: the tiles of each split, by its name.
    """

    folder: Path
    splits: Mapping[str, TiledData]


def tile(
    data: Data,
    out: str | Path,
    tiles: TileOptions,
    *,
    min_visible: float = 0.5,
    with_empty: bool = True,
    observer: Observer | None = None,
) -> TiledFolder:
    """Cut the images of a data set into tiles, all splits of it, and write them in COCO's layout.

    Nothing is lost in silence: an object of which a tile shows less than ``min_visible`` is a crowd region there, which
    training and evaluation leave alone, and is listed in ``tiles.json``, with those that no tile shows as objects.

    Args:
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        out: a folder that does not exist or is empty, outside the data set; written whole or not at all.
        tiles: their size and overlap.
        min_visible: fraction of an object's area, of its mask or else of its box, from 0 to 1.
        with_empty: keep tiles without any object.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the data is faulty, a number is out of range, or ``out`` is not empty.
    """
    observer, folder = observer or Observer(), Path(out)
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible is between 0 and 1, not {min_visible}")
    source = data.folder if isinstance(data, DataFiles) else data
    check_data_folder(folder, source if isinstance(source, str | Path) else None)
    splits = {name: read_split(data, name, observer=observer) for name in all_splits(data) or ["train"]}
    with TileReader() as reader:
        cut = {
            name: tile_data(read, tiles, reader, min_visible=min_visible, with_empty=with_empty)
            for name, read in splits.items()
        }
        observer.announce(f"writing {sum(len(one.images) for one in cut.values()):,} tiles into {folder}")
        find_writer("coco").write({name: one.data for name, one in cut.items()}, folder, link=False)
    listing = {"size": tiles.size, "overlap": tiles.overlap, "min_visible": min_visible, "splits": _list(cut)}
    write_text(folder / LISTING, json.dumps(listing, indent=1) + "\n")
    return TiledFolder(folder, cut)


def _list(splits: Mapping[str, TiledData]) -> dict[str, Any]:
    return {
        name: {
            "tiles": [
                {
                    "image_id": image.image_id,
                    "source": image.source.as_posix(),
                    "left": image.tile.left,
                    "top": image.tile.top,
                    "cut": [part._asdict() for part in image.cut],
                }
                for image in one.images
            ],
            "never_whole": list(one.never_whole),
            "empty_left_out": one.num_empty,
        }
        for name, one in splits.items()
    }
