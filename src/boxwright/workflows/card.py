"""The model card of a folder, with drawn images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.detector import Detector
from boxwright.files import write_text
from boxwright.model_card import CARD, CARD_THRESHOLD, write_card_text
from boxwright.passport import Passport
from boxwright.version import __version__
from boxwright.workflows.predict import predict
from boxwright_runtime.streaming import ImageInput

_IMAGES = "images"
"""Folder of the drawn images, beside the card."""

_USAGE = """\
import boxwright

detector = boxwright.load({path!r})  # or hf:OWNER/NAME
print(detector.predict("image.jpg"))"""

_TRANSFORMERS_USAGE = """\
from transformers import AutoImageProcessor, AutoModelForObjectDetection

model = AutoModelForObjectDetection.from_pretrained({path!r})  # or OWNER/NAME
processor = AutoImageProcessor.from_pretrained({path!r})"""


def write_card(
    folder: Path,
    detector: Detector,
    *,
    layout: str,
    images: Sequence[ImageInput] = (),
    threshold: float = CARD_THRESHOLD,
) -> Path:
    """Write the model card of a folder of weights.

    Args:
        folder: of the weights.
        detector: that they are of.
        layout: kind of source that reads them; ``boxwright`` for a checkpoint of ours.
        images: to draw with the detections in them.
        threshold: least score of what is drawn.

    Raises:
        FileNotFoundError: an image does not exist.
        ValueError: something is not an image, or the detector has no recipe.
    """
    if detector.recipe is None:
        raise ValueError("this detector has no recipe, which a model card describes; build it from one")
    names: list[str] = []
    if images:
        result = predict(detector, list(images), threshold=threshold, out=folder / _IMAGES)
        drawn = {path.stem: path.name for path in sorted((folder / _IMAGES).iterdir())}
        names = [f"{_IMAGES}/{drawn[Path(name).stem]}" for name in result.detections]
    passport = detector.passport or Passport(version=__version__)
    is_transformers = layout.startswith("hf_")
    text = write_card_text(
        passport,
        detector.categories,
        detector.recipe.to_dict(),
        title=folder.name,
        library="transformers" if is_transformers else "boxwright",
        usage=(_TRANSFORMERS_USAGE if is_transformers else _USAGE).format(path=folder.name),
        images=names,
    )
    write_text(folder / CARD, text)
    return folder / CARD
