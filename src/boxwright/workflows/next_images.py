"""The images of a folder that are worth labeling first."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image

from boxwright.data.image_inspection import difference_hash
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.evaluation.image_choice import Uncertainty, choose_uncertain, measure_uncertainty
from boxwright.files import check_target, write_text
from boxwright.structures import Features
from boxwright.workflows.models import load_predictor
from boxwright.workflows.named_images import NamedImage, name_images
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, all_splits, read_split
from boxwright_runtime import Runtime
from boxwright_runtime.images import read_image
from boxwright_runtime.read_ahead import map_ahead, plan_read_ahead
from boxwright_runtime.streaming import ImageInput, SkippedImage

_THUMBNAIL = 16
"""Sides of what an exported file's images are compared by."""


class NextImage(NamedTuple):
    """An image to label; ``novelty`` is how unlike it is to those before it and to labeled ones, in [0, 1]."""

    path: Path
    name: str
    uncertainty: Uncertainty
    novelty: float

    @property
    def reason(self) -> str:
        """The reason in words, the weightier one first."""
        classes, boxes = self.uncertainty
        parts = [(classes, f"classes are unclear ({classes:.2f})"), (boxes, f"boxes move when mirrored ({boxes:.2f})")]
        parts.append((self.novelty, f"unlike the others ({self.novelty:.2f})"))
        return ", ".join(text for value, text in sorted(parts, reverse=True) if value >= 0.005) or "nothing is unclear"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values."""
        classes, boxes = self.uncertainty
        numbers = {"class_uncertainty": classes, "box_uncertainty": boxes, "novelty": self.novelty}
        return {"path": str(self.path), "reason": self.reason, **numbers}


@dataclass(frozen=True, eq=False)
class NextImages:
    """Images to label, the most valuable first.

    Args:
        images: that were chosen.
        num_read: images that could be read.
        num_repeated: left out, as nearly the same image was chosen or is labeled.
        skipped: images that could not be read.
    """

    images: Sequence[NextImage]
    num_read: int
    num_repeated: int
    skipped: Sequence[SkippedImage]


def next_images(
    model: str | Path | Detector | Runtime,
    images: ImageInput | Iterable[ImageInput],
    count: int,
    *,
    labeled: Data | None = None,
    out: str | Path | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> NextImages:
    """Choose the images that are worth labeling first: a detector is unsure of them, and they differ from each other.

    Images are compared by the backbone's coarsest map, averaged over its cells; with an exported file, which does not
    put it out, by the colors of 16 x 16 parts.

    Args:
        model: as for ``predict``.
        images: files, folders and globs, as for ``predict``.
        count: of images to choose, at most.
        labeled: data set whose images, all splits, are known already.
        out: file for them, as JSON lines, or a list of paths where it ends in ``.txt``.
        device: as for ``predict``.
        trusted: as for ``predict``.
        observer: as for ``predict``.
        overrides: as for ``predict``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no detector, no images in files that can be read, or a count below 1.
    """
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    if count < 1:
        raise ValueError(f"the number of images is at least 1, not {count}")
    if out is not None:
        check_target(Path(out))
    named = [one for one in name_images(images, observer) if one.path is not None]
    known = [] if labeled is None else _name_labeled(labeled, observer)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    if predictor.task != "detection":
        raise ValueError(f"uncertainty is of boxes, and this model is for {predictor.task}")
    looker = _Looker(predictor.fold() if isinstance(predictor, Detector) else predictor, compute)
    known_ones, candidates, skipped = _look_at_all(looker, known, named, observer)
    if not candidates:
        raise ValueError(f"none of {len(named)} images could be read: {skipped[-1].reason if skipped else 'no files'}")
    chosen, num_repeated = choose_uncertain(
        np.array([seen.uncertainty.total for seen in candidates]),
        np.stack([seen.features for seen in candidates]),
        [seen.dhash for seen in candidates],
        count,
        known_features=np.stack([seen.features for seen in known_ones]) if known_ones else None,
        known_hashes=[seen.dhash for seen in known_ones],
    )
    listed = [_describe(candidates[one.position], one.novelty) for one in chosen]
    result = NextImages(listed, len(candidates), num_repeated, skipped)
    if out is not None:
        write_text(Path(out), _write(result, as_paths=Path(out).suffix == ".txt"))
    return result


def _look_at_all(
    looker: _Looker, known: Sequence[NamedImage], named: Sequence[NamedImage], observer: Observer
) -> tuple[list[_Seen], list[_Seen], list[SkippedImage]]:
    """Look at labeled images and at candidates; return both, and what could not be read."""
    known_ones, candidates, skipped = list[_Seen](), list[_Seen](), list[SkippedImage]()
    total = len(named) + len(known)
    with observer.track("looking") as progress:
        for index, (one, seen) in enumerate(looker.look([*known, *named], num_known=len(known))):
            if isinstance(seen, SkippedImage):
                skipped.append(seen)
            else:
                (known_ones if index < len(known) else candidates).append(seen._replace(image=one))
            progress(index + 1, total)
    return known_ones, candidates, skipped


def _write(result: NextImages, *, as_paths: bool) -> str:
    rows = (str(one.path) if as_paths else json.dumps(one.to_dict()) for one in result.images)
    return "".join(f"{row}\n" for row in rows)


class _Seen(NamedTuple):
    """View of a detector on an image."""

    uncertainty: Uncertainty
    features: Float64[np.ndarray, " d"]
    dhash: bytes | None
    image: NamedImage | None = None


def _describe(seen: _Seen, novelty: float) -> NextImage:
    assert seen.image is not None
    assert seen.image.path is not None
    return NextImage(seen.image.path, seen.image.name, seen.uncertainty, novelty)


def _name_labeled(labeled: Data, observer: Observer) -> list[NamedImage]:
    splits = (read_split(labeled, name, observer=observer) for name in all_splits(labeled) or ["train"])
    records = (record for split in splits for record in split.records)
    return [NamedImage(record.path.name, record.path) for record in records if record.source is None]


class _Looker:
    """Looks at images with a detector: at each, and at its mirror image.

    Args:
        predictor: prepared.
        compute: precision.
    """

    def __init__(self, predictor: Detector | Runtime, compute: ComputeOptions) -> None:
        self.predictor, self.compute = predictor, compute

    def look(
        self, images: Sequence[NamedImage], *, num_known: int
    ) -> Iterator[tuple[NamedImage, _Seen | SkippedImage]]:
        """Look at images; of the first ``num_known``, which are labeled, only features are of interest."""
        for index, (one, read) in enumerate(
            map_ahead(_read, images, plan_read_ahead(len(images)), in_thread=lambda _: True)
        ):
            try:
                pixels, dhash = read()
            except (OSError, ValueError) as error:
                yield one, SkippedImage(index, one.path, str(error))
                continue
            uncertainty, features = self._look_at(pixels, is_known=index < num_known)
            yield one, _Seen(uncertainty, features, dhash)

    def _look_at(
        self, pixels: UInt8[np.ndarray, "h w 3"], *, is_known: bool
    ) -> tuple[Uncertainty, Float64[np.ndarray, " d"]]:
        with _coarsest_map(self.predictor) as maps:
            detections = self._detect(pixels)
        features = _average(maps[0]) if maps else _average_parts(pixels)
        if is_known:
            return Uncertainty(0.0, 0.0), features
        mirrored = self._detect(np.ascontiguousarray(pixels[:, ::-1]))
        return measure_uncertainty(detections, mirrored, pixels.shape[1]), features

    def _detect(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Any:
        if isinstance(self.predictor, Runtime):
            return self.predictor.predict(pixels)
        return self.predictor.predict(pixels, precision=self.compute.precision)


def _read(_: int, image: NamedImage) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    assert image.path is not None
    pixels = read_image(image.path)
    return pixels, difference_hash(Image.fromarray(pixels))


@contextmanager
def _coarsest_map(predictor: Detector | Runtime) -> Iterator[list[torch.Tensor]]:
    """Collect the coarsest map of each call of the backbone; of an exported file there is none."""
    maps: list[torch.Tensor] = []
    if isinstance(predictor, Runtime):
        yield maps
        return

    def take(_: torch.nn.Module, __: Any, features: Features) -> None:
        maps.append(list(features.values())[-1])

    handle = predictor.backbone.register_forward_hook(take)
    try:
        yield maps
    finally:
        handle.remove()


def _average(features: torch.Tensor) -> Float64[np.ndarray, " d"]:
    return features[0].double().mean((1, 2)).cpu().numpy()


def _average_parts(pixels: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, " d"]:
    small = Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).reshape(-1)
