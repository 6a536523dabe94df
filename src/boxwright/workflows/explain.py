"""Explanation of a detection: which pixels it depends on, and how well that holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, UInt8

from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.explaining.saliency import (
    ExplainedObject,
    Faithfulness,
    gradient_saliency,
    measure_faithfulness,
    rise_saliency,
)
from boxwright.files import check_target
from boxwright.reports.explanation_page import ExplanationPage, write_explanation
from boxwright.reports.page import require_extra
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright_runtime.detections import Detection, Detections
from boxwright_runtime.images import read_image

ExplainMethod = Literal["rise", "gradient"]
"""Random masks (D-RISE), for any detector; or gradient times input, in one pass."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Saliency of a detection.

    Args:
        detection: that is explained.
        detections: all of the image, the best first.
        saliency: of each pixel of the image.
        faithfulness: how the score follows it.
        image: RGB.
        path: of the page; None where none was written.
    """

    detection: Detection
    detections: Detections
    saliency: Float32[np.ndarray, "h w"]
    faithfulness: Faithfulness
    image: UInt8[np.ndarray, "h w 3"]
    path: Path | None = None


def explain(
    model: str | Path | Detector,
    image: str | Path,
    *,
    number: int = 1,
    method: ExplainMethod = "rise",
    num_masks: int = 500,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain a detection by the pixels that its score depends on, and measure how well that holds.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector.
        image: an image file.
        number: of the detection, from 1, the one with the highest score.
        method: ``rise`` hides random parts of the image, many times; ``gradient`` is gradient times input.
        num_masks: of ``rise``.
        seed: of its masks.
        out: the page, an HTML file; none where None.
        device: cpu, cuda, ...; auto takes a GPU if there is one. A detector predicts where it is.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress.
        overrides: of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no model or image, a classifier, or there is no such detection.
    """
    if method not in get_args(ExplainMethod):
        raise ValueError(f"method is {' or '.join(get_args(ExplainMethod))}, not {method!r}")
    if (path := None if out is None else Path(out)) is not None:
        require_extra()
        check_target(path)
    observer = observer or Observer()
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    if detector.task != "detection":
        raise ValueError(f"detections are explained, and this model is for {detector.task}")
    if not isinstance(model, Detector):
        detector.to(choose_device(device))
    pixels = read_image(Path(image))
    detections = _detect(detector, pixels, image, number)
    detection = list(detections)[number - 1]
    target = ExplainedObject(detection.box, detection.label, detection.score)
    if method == "gradient":
        saliency = gradient_saliency(detector, pixels, target)
    else:
        with observer.track("hiding parts of the image") as progress:
            saliency = rise_saliency(detector, pixels, target, num_masks=num_masks, seed=seed, progress=progress)
    held = measure_faithfulness(detector, pixels, target, saliency)
    explanation = Explanation(detection, detections, saliency, held, pixels, path)
    if path is not None:
        write_explanation(
            path, _page(explanation, str(model) if not isinstance(model, Detector) else "", image, method)
        )
    return explanation


def _detect(detector: Detector, pixels: UInt8[np.ndarray, "h w 3"], image: str | Path, number: int) -> Detections:
    detections = detector.predict(pixels)
    assert isinstance(detections, Detections)
    if not 1 <= number <= len(detections):
        raise ValueError(f"{image}: there is no detection {number}: there are {len(detections)}, the best is 1")
    return detections


def _page(explanation: Explanation, model: str, image: str | Path, method: str) -> ExplanationPage:
    detection, held = explanation.detection, explanation.faithfulness
    return ExplanationPage(
        title=f"{detection.name} in {Path(image).name}",
        facts={
            "model": model,
            "score": f"{detection.score:.3f}",
            "box": ", ".join(f"{side:.0f}" for side in detection.box),
            "method": {"rise": "D-RISE: random parts hidden", "gradient": "gradient times input"}[method],
            "insertion": f"{held.insertion_score:.3f}",
            "deletion": f"{held.deletion_score:.3f}",
        },
        image=explanation.image,
        box=detection.box,
        saliency=explanation.saliency,
        fractions=held.fractions,
        insertion=held.insertion,
        deletion=held.deletion,
    )
