"""Names of classes of models whose files have none, and names that mean the same."""

from __future__ import annotations

import re

from boxwright.structures import Category

_COCO = """\
person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench
bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis
snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork
knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed -
dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
clock vase scissors teddy_bear hair_drier toothbrush"""

COCO_NAMES = _COCO.split()
"""COCO's 91 category ids from 1 to 90, in order, with a dash where an id has no class."""

UNUSED = "N/A"
"""Name of a row of a class layer that no class has: under a softmax it stays."""


PANOPTIC_CLASSES = 250
"""Rows of the class layer of DETR's models for panoptic segmentation, but for the last."""


def coco_categories() -> list[Category]:
    """List COCO's 80 classes, as models with contiguous labels have them."""
    return [Category(i, name.replace("_", " ")) for i, name in enumerate(COCO_NAMES, 1) if name != "-"]


_SYNONYMS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "plane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "cellularphone": "cell phone",
    "mobilephone": "cell phone",
    "hairdryer": "hair drier",
    "doughnut": "donut",
    "fridge": "refrigerator",
}
"""COCO's name of what Pascal VOC, Hugging Face's RT-DETR and spelling variants call otherwise."""

_BY_LETTERS = {name.replace("_", ""): name.replace("_", " ") for name in COCO_NAMES if name != "-"} | _SYNONYMS


def canonical_name(name: str) -> str:
    """Bring the name of a class to a form that is equal for names of the same class.

    Upper and lower case, and blanks, underscores and hyphens between words make no difference, and COCO's classes have
    COCO's names: ``pottedplant`` and ``Potted-Plant`` are ``potted plant``, ``motorbike`` is ``motorcycle``.
    """
    words = re.sub(r"[\s_-]+", " ", name.casefold()).strip()
    return _BY_LETTERS.get(words.replace(" ", ""), words)


def category_ids(num_classes: int) -> list[Category]:
    """List the classes of a model whose label i is COCO's category id i, else by number.

    Models for panoptic segmentation have these ids too, and numbers after them for what is no thing.
    """
    if num_classes not in (len(COCO_NAMES) + 1, PANOPTIC_CLASSES):
        return [Category(i, f"class_{i}") for i in range(num_classes)]
    names = [UNUSED, *(UNUSED if name == "-" else name.replace("_", " ") for name in COCO_NAMES)]
    names += [f"class_{i}" for i in range(len(names), num_classes)]
    return [Category(i, name) for i, name in enumerate(names)]
