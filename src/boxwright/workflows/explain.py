"""Explanation of a detection: where it comes from, which pixels it depends on, and how well that holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, UInt8
from PIL.Image import Image

from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.drawing.marks import MarkedSteps, draw_marks
from boxwright.drawing.mechanism_steps import mark_encoder, mark_mechanism
from boxwright.explaining.origin import DetectionOrigin, trace_origin
from boxwright.explaining.saliency import (
    ExplainedObject,
    Faithfulness,
    gradient_saliency,
    measure_faithfulness,
    rise_saliency,
)
from boxwright.files import check_target
from boxwright.mechanism import to_plain_values
from boxwright.reports.explanation_page import ExplanationPage, SaliencyPart, write_explanation
from boxwright.reports.page import require_extra
from boxwright.workflows.explanation_tables import tabulate_origin
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright_runtime.detections import Detection, Detections
from boxwright_runtime.images import read_image

ORIGIN_TEXTS = {
    "query": "The box of the query after each layer of the decoder (blue), the box or point that the layer starts from "
    "(yellow), and what the layer looked at: points are as large as their weight, of all attention heads.",
    "dense": "The detection (blue), the anchor or point that it was predicted from (yellow), its cell (orange), and "
    "boxes of the same class that overlap it.",
    "two_stage": "The proposal and its anchor, then the region that each box branch sees (yellow) and the box that it "
    "predicts (blue), and boxes that were removed in favor of it.",
    "classifier": "The logit of the class is a sum over the cells of the levels and a bias; cells that add to it are "
    "colored.",
}
"""Texts of the page, by the kind of a mechanism."""

ExplainMethod = Literal["rise", "gradient", "none"]
"""Random masks (D-RISE), for any detector; gradient times input, in one pass; or no saliency."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Origin and saliency of a detection.

    Args:
        number: of the detection, from 1.
        detections: all of the image, the best first.
        origin: by the head's own mechanism, in pixels of the image; None where the head, one from outside, has none.
        saliency: of each pixel of the image; None where it was not asked for.
        faithfulness: how the score follows the saliency; None where there is none.
        image: RGB.
        path: of the page; None where none was written.
    """

    number: int
    detections: Detections
    origin: DetectionOrigin | None
    saliency: Float32[np.ndarray, "h w"] | None
    faithfulness: Faithfulness | None
    image: UInt8[np.ndarray, "h w 3"]
    path: Path | None = None

    @property
    def detection(self) -> Detection:
        """The detection that is explained."""
        return list(self.detections)[self.number - 1]

    def steps(self) -> MarkedSteps | None:
        """Make the marks and texts of the origin, layer by layer or stage by stage; None where there is no origin."""
        names = [category.name for category in self.detections.categories]
        return None if self.origin is None else mark_mechanism(self.origin.mechanism, names)

    def describe(self) -> list[str]:
        """Tell the origin in words, a line for each layer or stage."""
        steps = self.steps()
        if steps is None:
            return []
        return [f"{name}: {text}" for name, text in zip(steps.names, steps.texts, strict=True)]

    def draw(self, step: int = -1) -> Image:
        """Draw the origin on the image: boxes, cell or anchor, points as large as their weights, maps.

        Args:
            step: layer or stage, from 0, the encoder's cell or the proposal where there is one; -1 is the last one.

        Raises:
            ValueError: there is no origin, or no such step.
        """
        steps = self.steps()
        if steps is None:
            raise ValueError("the head of this model has no explanations of its own to draw")
        count = len(steps.names)
        if not -count <= step < count:
            raise ValueError(f"there is no step {step}: there are {count}, from 0")
        return draw_marks(self.image, steps.marks_of(step % count))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values: ``detection``, and ``mechanism``, ``encoder``, ``faithfulness`` if there are any."""
        one, origin, held = self.detection, self.origin, self.faithfulness
        own = {"number": self.number, "name": one.name, "label": one.label, "score": one.score, "box": list(one.box)}
        content: dict[str, Any] = {"detection": own}
        if origin is not None:
            content["mechanism"] = to_plain_values(origin.mechanism)
            content["encoder"] = to_plain_values(origin.encoder)
        if held is not None:
            scores = {"insertion_score": held.insertion_score, "deletion_score": held.deletion_score}
            content["faithfulness"] = {**asdict(held), **scores}
        return content


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
    """Explain a detection by where its head has it from, and by the pixels that its score depends on.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector.
        image: an image file.
        number: of the detection, from 1, the one with the highest score.
        method: of saliency: ``rise`` hides random parts of the image, many times; ``gradient`` is gradient times
            input; ``none`` leaves saliency out.
        num_masks: of ``rise``.
        seed: of its masks.
        out: the page, an HTML file; none where None.
        device: cpu, cuda, ...; auto takes a GPU if there is one. A detector predicts where it is.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress.
        overrides: of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no model or image, or there is no such detection.
    """
    if method not in get_args(ExplainMethod):
        raise ValueError(f"method is one of {', '.join(get_args(ExplainMethod))}, not {method!r}")
    if (path := None if out is None else Path(out)) is not None:
        require_extra()
        check_target(path)
    observer = observer or Observer()
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    if not isinstance(model, Detector):
        detector.to(choose_device(device))
    pixels = read_image(Path(image))
    detections = _detect(detector, pixels, image, number)
    origin, saliency, held = trace_origin(detector, pixels, number), None, None
    if origin is None:
        observer.note("the head of this model is from outside Boxwright and does not tell where detections come from")
    if method != "none":
        saliency, held = _measure(detector, pixels, detections[number - 1], method, num_masks, seed, observer)
    explanation = Explanation(number, detections, origin, saliency, held, pixels, path)
    if path is not None:
        name = str(model) if not isinstance(model, Detector) else ""
        write_explanation(path, _page(explanation, name, image, method))
    return explanation


def _measure(
    detector: Detector,
    pixels: UInt8[np.ndarray, "h w 3"],
    detection: Detection,
    method: ExplainMethod,
    num_masks: int,
    seed: int,
    observer: Observer,
) -> tuple[Float32[np.ndarray, "h w"], Faithfulness]:
    target = ExplainedObject(detection.box, detection.label, detection.score)
    if method == "gradient":
        saliency = gradient_saliency(detector, pixels, target)
    else:
        with observer.track("hiding parts of the image") as progress:
            saliency = rise_saliency(detector, pixels, target, num_masks=num_masks, seed=seed, progress=progress)
    return saliency, measure_faithfulness(detector, pixels, target, saliency)


def _detect(detector: Detector, pixels: UInt8[np.ndarray, "h w 3"], image: str | Path, number: int) -> Detections:
    detections = detector.predict(pixels)
    assert isinstance(detections, Detections)
    if not 1 <= number <= len(detections):
        raise ValueError(f"{image}: there is no detection {number}: there are {len(detections)}, the best is 1")
    return detections


def _page(explanation: Explanation, model: str, image: str | Path, method: ExplainMethod) -> ExplanationPage:
    detection, held, saliency = explanation.detection, explanation.faithfulness, explanation.saliency
    facts = {
        "model": model,
        "detection": f"{explanation.number} of {len(explanation.detections)}",
        "score": f"{detection.score:.3f}",
        "box": ", ".join(f"{side:.0f}" for side in detection.box),
    }
    part = None
    if held is not None and saliency is not None:
        facts |= {
            "saliency": {"rise": "D-RISE: random parts hidden", "gradient": "gradient times input"}[method],
            "insertion": f"{held.insertion_score:.3f}",
            "deletion": f"{held.deletion_score:.3f}",
        }
        part = SaliencyPart(
            saliency=saliency, fractions=held.fractions, insertion=held.insertion, deletion=held.deletion
        )
    names = [category.name for category in explanation.detections.categories]
    return ExplanationPage(
        title=f"{detection.name} in {Path(image).name}",
        facts={name: fact for name, fact in facts.items() if fact},
        image=explanation.image,
        box=detection.box,
        figures=_figures(explanation),
        sections=[] if explanation.origin is None else tabulate_origin(explanation.origin.mechanism, names),
        saliency=part,
    )


def _figures(explanation: Explanation) -> list[tuple[str, str, MarkedSteps]]:
    steps, origin = explanation.steps(), explanation.origin
    if steps is None or origin is None:
        return []
    figures = [("Where it comes from", ORIGIN_TEXTS[origin.mechanism.kind], steps)]
    if origin.encoder:
        text = (
            "Attention of the encoder's cell at the middle of the detection, which is how the features there "
            "come to know of other parts of the image."
        )
        figures.append(("What the encoder looked at", text, mark_encoder(origin.encoder, origin.mechanism.box)))
    return figures
