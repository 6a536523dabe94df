"""Metadata of exported files: classes, preprocessing and origin, as one JSON text inside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.structures import Category, MaskRegion, Task

METADATA_KEY = "boxwright"
"""Name of the text in a file: a key of ONNX's ``metadata_props``, of OpenVINO's ``rt_info``."""

METADATA_FORMAT = 1
"""The newest form of the text that this version reads."""

Profile = Literal["bytes", "float"]
"""The input of a file: bytes of images of any size, or network inputs that were made outside, and the images' sizes."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Facts about an exported file.

    Args:
        version: of Boxwright, that wrote it.
        task: detection or classification.
        categories: label i means ``categories[i]``.
        input_format: preprocessing, inside the file or outside.
        profile: ``bytes`` or ``float``; see ``Profile``.
        precision: in which it computes: fp32, fp16, bf16 or int8.
        ops: ``auto``, or ``plain`` for runtimes without newer operators.
        masks: the region that the cells of a mask consist of, where it has masks beside boxes.
        tuning: numbers of each class by its name: ``thresholds``, and perhaps ``temperatures`` and ``shifts``:
            sigmoid(logit(score) / temperature + shift) is the fraction of detections with this score that are right.
            None where they were not tuned.
        passport: origin and history of the weights.
        recipe: of the model.
        float32_nodes: names of the nodes that stay in float32.
    """

    version: str
    task: Task
    categories: tuple[Category, ...]
    input_format: InputFormat
    profile: Profile = "bytes"
    precision: str = "fp32"
    ops: str = "auto"
    masks: MaskRegion | None = None
    tuning: Mapping[str, Mapping[str, float]] | None = None
    passport: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None
    float32_nodes: tuple[str, ...] = field(default=())

    @property
    def thresholds(self) -> Mapping[str, float] | None:
        """Tuned least score of each class by its name; None where they were not tuned."""
        return None if self.tuning is None else self.tuning["thresholds"]

    def to_json(self) -> str:
        """Write the text that a file holds."""
        return json.dumps({"format": METADATA_FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """Read the text that a file holds.

        Raises:
            ValueError: it was written by a newer version, or is damaged; the caller adds the file's name.
        """
        try:
            content = json.loads(text)
            written = int(content["format"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"its metadata are damaged ({type(error).__name__})") from None
        if written > METADATA_FORMAT:
            raise ValueError(
                f"it was written by a newer version, Boxwright {content.get('version')}, in format {written}; this one "
                f"reads {METADATA_FORMAT}: update boxwright or boxwright-runtime"
            )
        try:
            return _from_content(content)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"its metadata are damaged ({type(error).__name__}: {error})") from None


def _from_content(content: dict[str, Any]) -> Metadata:
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content["input_format"].items()
    }
    # Where there was but one region, it was true or false.
    masks = content.get("masks") or None
    masks = "box" if masks is True else masks
    choices = {"profile": get_args(Profile), "task": get_args(Task), "masks": (*get_args(MaskRegion), None)}
    for name, allowed in choices.items():
        value = masks if name == "masks" else content[name]
        if value not in allowed:
            raise ValueError(f"{name} is {' or '.join(map(str, allowed))}, not {value!r}")
    known = {one.name: content[one.name] for one in fields(Metadata) if one.name in content}
    known |= {
        "categories": tuple(Category(int(one["id"]), str(one["name"])) for one in content["categories"]),
        "input_format": InputFormat(**options),
        "masks": masks,
        "float32_nodes": tuple(content.get("float32_nodes") or ()),
    }
    return Metadata(**known)
