"""Certificates of exported files: measurements of a file beside its model, and whether it may be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from boxwright.exporting.comparison import FLOAT32_TOLERANCE, DetectionAgreement
from boxwright.exporting.export_file import list_files

CERTIFICATE_SUFFIX = ".certificate.json"

CERTIFICATE_FORMAT = 1

GRAY_LEVEL = 1.01
"""Difference of pixels that rounding explains, in gray levels of 255."""

_MOST_OTHER_PIXELS = 1e-3
"""Fraction of the pixels that may differ by more."""


@dataclass(frozen=True, kw_only=True)
class ClassDifference:
    """A class's measure (AP, or top-1) of the model and of the file, in [0, 1]; -1 where it has no objects."""

    category_id: int
    name: str
    of_model: float
    of_file: float

    @property
    def difference(self) -> float:
        """Points, of 100, that the file is above the model; 0 where there is nothing to measure."""
        return 0.0 if self.of_model < 0 else 100 * (self.of_file - self.of_model)


@dataclass(frozen=True, kw_only=True)
class PixelDifference:
    """Differences of the network inputs that a file makes from those of prediction.

    Args:
        images: compared.
        largest: in gray levels.
        fraction: of pixels that differ by more than one gray level.
        sizes_differ: some have another size.
    """

    images: int
    largest: float
    fraction: float
    sizes_differ: bool = False


@dataclass(frozen=True, kw_only=True)
class ConversionTry:
    """One try to convert a file to a precision.

    Args:
        float32: names of the parts that stayed in float32.
        loss: points of AP, of 100, that it lost.
        is_good: whether it was accepted.
    """

    float32: tuple[str, ...]
    loss: float
    is_good: bool


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Numbers of both sides by name: AP and others, or top-1 and top-5; of masks with ``segm.`` before; of classes.

    ``settled`` are those of the file without what rounding makes of its detections, see ``settle_detections``; measured
    where the file is in float32 and differs by more than it may.
    """

    of_model: Mapping[str, float]
    of_file: Mapping[str, float]
    classes: tuple[ClassDifference, ...]
    settled: Mapping[str, float] | None = None

    def losses(self) -> dict[str, float]:
        """Return the points, of 100, that the file is below the model, of the measures that decide."""
        names = [name for name in ("AP", "segm.AP", "top1") if name in self.of_model]
        return {name: 100 * (self.of_model[name] - self.of_file.get(name, 0.0)) for name in names}

    def losses_beyond_rounding(self) -> dict[str, float]:
        """Return the same of the settled detections, where they were measured."""
        return self.losses() if self.settled is None else replace(self, of_file=self.settled).losses()


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Measurements of a file.

    Args:
        file: its name.
        sha256: of the file, and of the weights beside it.
        runtime: that it was measured in.
        precision: of the file.
        tolerance: points of AP, of 100, that it may lose.
        measurements: of the whole split, and of each class.
        agreement: of detections on the same network inputs.
        pixels: of the network inputs; None for a file that does not make them.
        float32: names of the parts that stay in float32.
        conversions: tries that came to this file.
        context: what was measured on, and with: data, machine, versions, origin of the model.
        speed: rows of a benchmark of the model and the file.
    """

    file: str
    sha256: str
    runtime: str
    precision: str
    tolerance: float
    measurements: Measurements
    agreement: DetectionAgreement
    pixels: PixelDifference | None
    float32: tuple[str, ...] = ()
    conversions: tuple[ConversionTry, ...] = ()
    context: Mapping[str, Any]
    speed: Sequence[Mapping[str, Any]] = ()

    @property
    def faults(self) -> list[str]:
        """Reasons not to use the file, one line each; none where it is accepted."""
        lines = [
            f"{name} of the file is {loss:.2f} points below the model's, and may be {self.tolerance:g}"
            for name, loss in self.measurements.losses_beyond_rounding().items()
            if not loss <= self.tolerance
        ]
        gains = [
            f"{name} of the file is {-loss:.2f} points above the model's, from which float32 does not differ so"
            for name, loss in self.measurements.losses_beyond_rounding().items()
            if self.precision == "fp32" and -loss > self.tolerance
        ]
        return [*lines, *gains, *self._pixel_faults(), *self._agreement_faults()]

    @property
    def is_accepted(self) -> bool:
        """True where nothing speaks against the file."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``."""
        return {
            "format": CERTIFICATE_FORMAT,
            "accepted": self.is_accepted,
            "faults": self.faults,
            "name": self.file,
            "sha256": self.sha256,
            "runtime": self.runtime,
            "precision": self.precision,
            "tolerance": self.tolerance,
            "model": dict(self.measurements.of_model),
            "file": dict(self.measurements.of_file),
            "losses": self.measurements.losses(),
            "losses_beyond_rounding": self.measurements.losses_beyond_rounding(),
            "per_class": [{**asdict(one), "difference": one.difference} for one in self.measurements.classes],
            "same_network_input": asdict(self.agreement),
            "network_input": None if self.pixels is None else asdict(self.pixels),
            "float32": list(self.float32),
            "conversions": [asdict(one) for one in self.conversions],
            "speed": [dict(row) for row in self.speed],
            **self.context,
        }

    def _pixel_faults(self) -> list[str]:
        pixels = self.pixels
        if pixels is None:
            return []
        if pixels.sizes_differ:
            return ["the file makes network inputs of other sizes than prediction does"]
        if pixels.fraction > _MOST_OTHER_PIXELS:
            return [
                f"{pixels.fraction:.1%} of the pixels of the file's network input are more than a gray level off, by "
                f"up to {pixels.largest:.0f}: it resizes or normalizes in another way than prediction"
            ]
        return []

    def _agreement_faults(self) -> list[str]:
        if self.precision != "fp32" or self.agreement.is_within(FLOAT32_TOLERANCE):
            return []
        return [f"on the same network input, {self.agreement.describe()}"]


def hash_exported(file: Path) -> str:
    """Compute the SHA-256 of an exported file and of the weights beside it."""
    digest = hashlib.sha256()
    for path in list_files(file):
        with path.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def find_certificate(file: str | Path) -> Path:
    """Return the path that an exported file's certificate has."""
    return Path(f"{file}{CERTIFICATE_SUFFIX}")


def with_speed(certificate: Certificate, rows: Sequence[Mapping[str, Any]]) -> Certificate:
    """Add the rows of a benchmark."""
    return replace(certificate, speed=tuple(rows))
