"""Data sets as workflows are told of them, read one split at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.data.open import DataSource, list_splits, open_data
from boxwright.data.pseudo_labels import add_pseudo_labels
from boxwright.data.records import DetectionData
from boxwright.structures import Category, Task
from boxwright.workflows.observer import Observer


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """A data set in files that lie in no known layout, a folder whose format is named, or one with pseudo-labels.

    Args:
        folder: the data folder; None where every split has files of its own.
        annotations: annotation file of a split, in place of the folder's.
        images: image folder of a split, in place of the folder's; beside the annotation file where only that is
            named.
        data_format: name of a format in ``boxwright/data/readers``; recognized by the files where None.
        pseudo: folder of a data set, of any format, whose labels are a detector's, as ``boxwright.prelabel`` writes
            it; its split ``train`` is added to this one's, see ``add_pseudo_labels``.
        pseudo_weight: of each of its images.
    """

    folder: str | Path | None = None
    annotations: Mapping[str, str | Path] = field(default_factory=dict)
    images: Mapping[str, str | Path] = field(default_factory=dict)
    data_format: str | None = None
    pseudo: str | Path | None = None
    pseudo_weight: float = 1.0

    @property
    def named_splits(self) -> list[str]:
        """The splits with a file or folder of their own."""
        return list(dict.fromkeys([*self.annotations, *self.images]))


Data = DataSource | DataFiles
"""A folder, files, an ``ImageDataset``, or one ``ImageDataset`` for each split by its name."""


def read_split(
    data: Data,
    split: str,
    *,
    task: Task = "detection",
    categories: Sequence[Category] | None = None,
    with_images: bool = True,
    drop_unreadable_images: bool = False,
    observer: Observer,
) -> DetectionData:
    """Read and check a split; what was dropped or repaired are notes.

    Args:
        data: the data set.
        split: the name of the split.
        task: of the model.
        categories: the classes of a model; the data's own where None.
        with_images: False for annotations alone, whose images need not be there.
        drop_unreadable_images: go on without them, and without annotations that cannot be read, see ``open_data``.
        observer: hears notes, and how far the images are checked.

    Raises:
        FileNotFoundError: a folder or an annotation file does not exist.
        ValueError: there is no such split, or the data is faulty.
    """
    files = data if isinstance(data, DataFiles) else DataFiles()
    with observer.track(f"checking {split}") as progress:
        read = open_data(
            files.folder if isinstance(data, DataFiles) else data,
            split,
            task=task,
            data_format=files.data_format,
            annotations=files.annotations.get(split),
            images=files.images.get(split),
            categories=categories,
            with_images=with_images,
            drop_unreadable_images=drop_unreadable_images,
            drop_invalid_entries=drop_unreadable_images,
            progress=progress,
        )
    for note in read.notes:
        observer.note(note)
    if files.pseudo is None or split != "train":
        return read
    # Their classes are those of the labels that somebody has looked at.
    own = DataFiles(folder=files.pseudo)
    pseudo = read_split(own, split, task=task, categories=read.categories, with_images=with_images, observer=observer)
    return add_pseudo_labels(read, pseudo, files.pseudo_weight)


def all_splits(data: Data, task: Task = "detection") -> list[str]:
    """Return the splits with files of their own, and all others that there are; train and val first.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not a folder, or it is empty.
    """
    files = data if isinstance(data, DataFiles) else None
    named = files.named_splits if files is not None else []
    if files is not None and files.folder is None:
        return named
    source = files.folder if files is not None else data
    assert source is not None
    assert not isinstance(source, DataFiles)
    listed = list_splits(source, task=task, data_format=files.data_format if files is not None else None)
    first = [split for split in ("train", "val") if split in {*named, *listed}]
    return list(dict.fromkeys([*first, *named, *listed]))


def has_split(data: Data, split: str, task: Task) -> bool:
    """Tell whether a data set has a split for this task."""
    if not isinstance(data, DataFiles):
        return split in list_splits(data, task=task)
    if split in data.annotations:
        return True
    return data.folder is not None and split in list_splits(data.folder, task=task, data_format=data.data_format)


def data_name(data: Data) -> str:
    """Return a short name of a data set, for the folder of a run."""
    if isinstance(data, DataFiles):
        data = data.folder or next(iter(data.annotations.values()))
    if isinstance(data, str | Path):
        path = Path(data).resolve()
        return path.name if path.is_dir() else path.stem
    one = next(iter(data.values())) if isinstance(data, Mapping) else data
    return one.name


def data_path(data: Data) -> str:
    """Return the path of a data set as it was typed, for commands that repeat; its name where it has none."""
    if isinstance(data, DataFiles):
        return str(data.folder) if data.folder is not None else data_name(data)
    return str(data) if isinstance(data, str | Path) else data_name(data)
