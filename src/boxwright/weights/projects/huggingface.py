"""Files beside the weights in Hugging Face layout: classes in ``config.json``, preprocessing in
``preprocessor_config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boxwright.structures import Category
from boxwright.weights.source import SourceFiles
from boxwright_runtime.input_format import InputFormat

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BILINEAR = 2
"""Number of the filter in Pillow."""


@dataclass(frozen=True, kw_only=True)
class ProcessorDefaults:
    """Values of an image processor of transformers where its file states none.

    Args:
        name: of its class.
        size: of the network input.
        normalizes: subtract mean and divide by std.
    """

    name: str
    size: Mapping[str, int]
    normalizes: bool = True


DETR_PROCESSOR = ProcessorDefaults(name="DetrImageProcessor", size={"shortest_edge": 800, "longest_edge": 1333})

RTDETR_PROCESSOR = ProcessorDefaults(name="RTDetrImageProcessor", size={"height": 640, "width": 640}, normalizes=False)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preprocessing in our words.

    Args:
        overrides: options of the input, by dotted key.
        assumptions: what the file does not say, one line each.
    """

    overrides: Mapping[str, Any]
    assumptions: Sequence[str] = ()


def read_categories(config: Mapping[str, Any], num_classes: int) -> tuple[list[Category], list[str]]:
    """Read the classes of a model, label by label, and lines to say about them.

    Args:
        config: content of ``config.json``; may be empty.
        num_classes: rows of its class layer.
    """
    names = {int(label): str(name) for label, name in (config.get("id2label") or {}).items()}
    named = [names.get(label, f"LABEL_{label}") for label in range(num_classes)]
    notes = []
    if all(re.fullmatch(r"LABEL_\d+", name) for name in named):
        notes.append(f"the names of its {num_classes} classes are not in its files: they are called LABEL_0 and so on")
    return [Category(label, name) for label, name in enumerate(named)], notes


def write_categories(categories: Sequence[Category]) -> dict[str, Any]:
    """Make the entries of ``config.json`` for classes."""
    return {
        "id2label": {str(label): category.name for label, category in enumerate(categories)},
        "label2id": {category.name: label for label, category in enumerate(categories)},
    }


def read_preprocessing(files: SourceFiles, defaults: ProcessorDefaults) -> Preprocessing:
    """Read the preprocessing of a model, in today's form and in older ones.

    Raises:
        ValueError: a form that there is no counterpart of here, in one line.
    """
    content, notes = files.preprocessor, []
    if not content:
        notes.append(
            f"no preprocessor_config.json: {defaults.name}'s own preprocessing; input.image_size, input.mean and so on "
            "say otherwise"
        )
    if content.get("do_resize") is False:
        raise ValueError("its images are not resized (do_resize), and inputs here have a size; give it a size")
    if content.get("resample") not in (None, BILINEAR):
        notes.append(f"its images are resized with filter {content['resample']} of Pillow, and ours bilinearly")
    if content.get("pad_size"):
        notes.append(f"its images are padded to {content['pad_size']}, and ours are not")
    sizes, size_notes = _read_size(content, defaults)
    return Preprocessing(
        overrides={f"input.{key}": value for key, value in {**sizes, **_read_scale(content, defaults)}.items()},
        assumptions=(*notes, *size_notes),
    )


def _read_scale(content: Mapping[str, Any], defaults: ProcessorDefaults) -> dict[str, Any]:
    """Read mean and std of channels with values in [0, 1]."""
    factor = content.get("rescale_factor") or 1 / 255 if content.get("do_rescale", True) else 1.0
    unit = 255 * factor
    unit = 1.0 if abs(unit - 1) < 1e-9 else unit
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if content.get("do_normalize", defaults.normalizes):
        mean, std = (
            _channels(content.get(f"image_{name}"), default)
            for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        )
    return {"mean": tuple(value / unit for value in mean), "std": tuple(value / unit for value in std)}


def _channels(value: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if value is None:
        return default
    red, green, blue = [value] * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)


def _read_size(content: Mapping[str, Any], defaults: ProcessorDefaults) -> tuple[dict[str, Any], list[str]]:
    """Read the resize rule."""
    size = content.get("size") or defaults.size
    if isinstance(size, int):
        # Up to transformers 4.25: the shortest side, and the longest beside it; a square in a square's processor.
        is_square = "height" in defaults.size
        longest = content.get("max_size", defaults.size.get("longest_edge"))
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size, "longest_edge": longest}
    if not isinstance(size, Mapping):
        raise ValueError(f"the size of its images, {size}, is none of the forms of transformers; write it as a mapping")
    if size.get("height") and size.get("width"):
        if size["height"] != size["width"] or size["height"] % 32:
            raise ValueError(
                f"its images are stretched to {size['height']} x {size['width']} pixels; "
                "here they can be stretched to squares whose side is a multiple of 32"
            )
        return {"resize": "square", "image_size": size["height"], "max_size": None, "size_rule": "detr"}, []
    if size.get("max_height") and size.get("max_width"):
        if size["max_height"] != size["max_width"]:
            raise ValueError(
                f"its images fit into {size['max_height']} x {size['max_width']} pixels; here the longest side can be "
                "limited, whichever it is"
            )
        # The longest side is that limit, and both sides are rounded down.
        return _limited(size["max_height"], size["max_height"], "torchvision"), []
    longest = size.get("longest_edge")
    shortest = size.get("shortest_edge", longest)
    if not shortest:
        raise ValueError(f"the size of its images, {dict(size)}, has no sides; give shortest_edge and longest_edge")
    notes = []
    if "shortest_edge" not in size:
        notes.append(f"size has no shortest_edge: the longest side of its images is {longest} pixels")
    return _limited(shortest, longest, "transformers"), notes


def _limited(shortest: int, longest: int | None, rule: str) -> dict[str, Any]:
    # A limit below the shortest side always binds.
    shortest = shortest if longest is None else min(shortest, longest)
    return {"resize": "shortest_side", "image_size": shortest, "max_size": longest, "size_rule": rule}


def write_preprocessing(image: InputFormat, processor: str, *, resizes_floats: bool = False) -> dict[str, Any]:
    """Make the content of ``preprocessor_config.json``.

    Args:
        image: the input format.
        processor: name of the class of transformers that reads it.
        resizes_floats: this class resizes floats, and without antialias.

    Raises:
        ValueError: a preprocessing that transformers has no counterpart of, in one line.
    """
    foreign = {
        name: value
        for name, value, usual in (
            ("resize", image.resize, ("square", "shortest_side")),
            ("channel_order", image.channel_order, ("rgb",)),
            ("antialias", image.antialias, (not resizes_floats,)),
            ("resize_floats", image.resize_floats, (resizes_floats,)),
            ("pad_multiple", image.pad_multiple, (1,)),
        )
        if value not in usual
    }
    if foreign:
        options = ", ".join(f"input.{name} {value}" for name, value in foreign.items())
        raise ValueError(f"transformers has no counterpart of its preprocessing: {options}")
    if image.resize == "square":
        size = {"height": image.image_size, "width": image.image_size}
    else:
        # Its sizes need both; a side that is a hundred times the other is an image of nothing.
        size = {"shortest_edge": image.image_size, "longest_edge": image.max_size or 100 * image.image_size}
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size,
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
        "do_pad": image.resize == "shortest_side",
        "format": "coco_detection",
    }
