"""Pascal VOC: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages/ and labelmap.txt; holds no masks and no ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as Xml

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.records import DetectionData, Record
from boxwright.data.writers._check import check_written, count_objects, filled_splits
from boxwright.data.writers._target import (
    MASKS_LEFT_OUT,
    TargetNames,
    class_names,
    lost_areas,
    lost_ids,
    put_image,
    shortest,
    sound_polygons,
    whole_folder,
)

CROWD_AS_DIFFICULT = FindingKind("crowd_as_difficult", "note", "crowd regions written as objects marked difficult")
FRACTIONS_OF_PIXELS = FindingKind(
    "fractions_of_pixels", "note", "images with coordinates between pixels, which some readers of VOC files refuse"
)


def write(splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]:
    """Write splits as Pascal VOC files.

    Boxes are from xmin, ymin to xmax, ymax with nothing added; crowd regions are marked difficult; polygons are written
    as ``<polygon>``, as Roboflow does. Classes and their order are in ``labelmap.txt``, as CVAT writes it.

    Args:
        splits: by name.
        folder: does not exist, or is empty.
        link: images are hard links where possible, else copies.

    Returns:
        what the format does not hold.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: the folder is not empty or cannot be written, or files of this format do not hold the data.
    """
    findings: list[Finding] = []
    splits = filled_splits(splits, findings)
    names = TargetNames(flat=True, by_stem=True)
    classes = class_names(splits, findings)
    with whole_folder(folder) as target:
        for inner in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (target / inner).mkdir(parents=True)
        for split, data in splits.items():
            of_split = names.of_split(split, data.records, findings)
            for record, name in zip(data.records, of_split, strict=True):
                put_image(record, target / "JPEGImages" / name, link=link)
                tree = Xml.ElementTree(_annotation(record, name, data, classes, findings))
                Xml.indent(tree)
                tree.write(target / "Annotations" / f"{_stem(name)}.xml", encoding="utf-8")
            listed = "".join(f"{_stem(name)}\n" for name in of_split)
            (target / "ImageSets" / "Main" / f"{split}.txt").write_text(listed, encoding="utf-8")
        lines = "".join(f"{name}:::\n" for name in classes.values())
        (target / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + lines, encoding="utf-8")
        check_written(target, "voc", splits, count_objects(splits))
    return [*findings, *lost_ids(splits), *lost_areas(splits)]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _annotation(
    record: Record, image: str, data: DetectionData, classes: Mapping[str, str], findings: list[Finding]
) -> Xml.Element:
    root = Xml.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", image)
    size = _add(root, "size")
    for name, length in (("width", record.width), ("height", record.height), ("depth", 3)):
        _add(size, name, str(length))
    _add(root, "segmented", "0")
    x1, y1, width, height = record.bbox_xywh.T
    corners = zip(x1.tolist(), y1.tolist(), (x1 + width).tolist(), (y1 + height).tolist(), strict=True)
    has_fractions = False
    for index, box in enumerate(corners):
        item = _add(root, "object")
        _add(item, "name", classes[data.categories[int(record.labels[index])].name])
        for name, value in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", str(int(record.crowd[index])))):
            _add(item, name, value)
        bndbox = _add(item, "bndbox")
        for name, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            _add(bndbox, name, shortest(side))
        where = f"{image} (annotation {record.annotation_ids[index]})"
        _add_polygons(item, record, index, where, findings)
        if record.crowd[index]:
            findings.append(Finding(CROWD_AS_DIFFICULT, where))
        has_fractions = has_fractions or any(side != int(side) for side in box)
    if has_fractions:
        findings.append(Finding(FRACTIONS_OF_PIXELS, image))
    return root


def _add_polygons(item: Xml.Element, record: Record, index: int, where: str, findings: list[Finding]) -> None:
    segmentation = record.segmentations[index] if record.segmentations else None
    if segmentation and not isinstance(segmentation, list):
        findings.append(Finding(MASKS_LEFT_OUT, where, "run lengths"))
        return
    for polygon in sound_polygons(record, index, where, findings) or ():
        points = _add(item, "polygon")
        for number, (x, y) in enumerate(zip(polygon[0::2], polygon[1::2], strict=True), start=1):
            _add(points, f"x{number}", shortest(x))
            _add(points, f"y{number}", shortest(y))


def _add(parent: Xml.Element, name: str, text: str | None = None) -> Xml.Element:
    element = Xml.SubElement(parent, name)
    element.text = text
    return element
