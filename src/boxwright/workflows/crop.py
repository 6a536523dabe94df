"""Objects of a detection data set, cut out as a data set for classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from boxwright.data.image_check import ProgressCallback
from boxwright.data.object_crops import Cut, check_crop, class_folder_names, crop_objects
from boxwright.files import check_folder
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, DataFiles, all_splits, read_split


def crop(
    data: Data,
    out: str | Path,
    *,
    margin: float = 0.1,
    min_size: int = 8,
    observer: Observer | None = None,
) -> dict[str, Cut]:
    """Cut every object out of a data set, as a square image in ``out/SPLIT/CLASS``.

    Args:
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        out: a folder that does not exist or is empty.
        margin: around an object, as a fraction of its longer side.
        min_size: shorter side that an object has at least, in pixels.
        observer: hears notes and progress; notes become warnings where None.

    Returns:
        the number of images of each class, by the name of the split.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the data is faulty, a number is out of range, or ``out`` is not empty.
    """
    observer = observer or Observer()
    folder = check_crop_folder(out)
    check_crop(margin, min_size)
    splits = all_splits(data)
    if not splits:
        raise ValueError(
            f"{data.folder if isinstance(data, DataFiles) else data}: no annotations of any split; what is cut is a "
            "data set for detection, in any known format"
        )
    read = {split: read_split(data, split, observer=observer) for split in splits}
    for one in read.values():
        class_folder_names(one)
    cuts = {}
    for split, one in read.items():
        with observer.track(f"cutting {split}") as progress:
            cuts[split] = crop_objects(
                one,
                folder / split,
                margin=margin,
                min_size=min_size,
                progress=_of_total(progress, len(one.records)),
            )
    return cuts


def _of_total(progress: ProgressCallback, total: int) -> Callable[[int], None]:
    return lambda done: progress(done, total)


def check_crop_folder(out: str | Path) -> Path:
    """Make sure that a folder can be filled with crops.

    Raises:
        ValueError: it cannot be written, or is not empty.
    """
    folder = Path(out)
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and is not overwritten: give another --out")
    return folder
