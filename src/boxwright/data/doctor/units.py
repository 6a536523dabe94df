"""Boxes in another form than the file's format says: corners, centers, swapped axes, fractions or percentages.

Recognized over a whole split, with the boxes that were dropped on reading: a wrong form is why most of them were.
"""

from __future__ import annotations

from boxwright.data.doctor.box_forms import FEWEST, MANY_MISFITS, BoxForm, FileBoxes, stray_boxes
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind

CORNERS_AS_SIZES = FindingKind(
    "corners_as_sizes",
    "error",
    "splits have boxes that are corners (x1, y1, x2, y2) where left, top, width, height belong",
    "subtract the first corner from the second, or export again; --fix does",
)
CENTERS_AS_CORNERS = FindingKind(
    "centers_as_corners",
    "error",
    "splits have boxes that begin with their center where left and top belong",
    "subtract half of width and height, or export again; --fix does",
)
SWAPPED_AXES = FindingKind(
    "swapped_axes",
    "error",
    "splits have boxes with x and y swapped",
    "swap them (left, top, width, height), or export again; --fix does",
)
FRACTIONS_AS_PIXELS = FindingKind(
    "fractions_as_pixels",
    "error",
    "splits have boxes in 0..1 where pixels belong",
    "multiply them by the width and height of their images; --fix does",
)
PERCENTAGES_AS_PIXELS = FindingKind(
    "percentages_as_pixels",
    "error",
    "splits have boxes in 0..100 of larger images: percentages where pixels belong",
    "multiply them by the width and height of their images, and divide by 100; --fix does",
)
BOXES_OF_STATED_SIZE = FindingKind(
    "boxes_of_stated_size",
    "error",
    "splits have boxes for images of the size that the file states, which are of another size",
    "scale them to the images that are there, or restore the images; --fix scales them",
)
BOXES_OF_OTHER_SIZE = FindingKind(
    "boxes_of_other_size",
    "error",
    "splits have boxes for images of another size",
    "divide them by the factor, or restore the images that they were drawn on",
)
MANY_BEYOND_IMAGE = FindingKind(
    "many_beyond_image",
    "error",
    "splits have over a fifth of their boxes without area inside the image, or beyond it",
    "are they of other images, or in another form? --fix leaves them as they are",
)
STRAY_FORM = FindingKind(
    "stray_form",
    "warning",
    "splits have some boxes in another form than the rest",
    "export them again; --fix leaves them as they are",
)

_KINDS = {
    ("pixels", "corners"): CORNERS_AS_SIZES,
    ("pixels", "centers"): CENTERS_AS_CORNERS,
    ("pixels", "swapped"): SWAPPED_AXES,
}
_KINDS_OF_UNITS = {
    "fractions": FRACTIONS_AS_PIXELS,
    "percentages": PERCENTAGES_AS_PIXELS,
    "stated": BOXES_OF_STATED_SIZE,
    "scaled": BOXES_OF_OTHER_SIZE,
}
_LAYOUTS = {
    "left_top": "left, top, width, height",
    "corners": "corners (x1, y1, x2, y2)",
    "centers": "center, width, height",
    None: "whether they begin with left and top or with the center is not clear, and --fix leaves them as they are",
}


def find_wrong_units(objects: ObjectTable, split: str) -> list[Finding]:
    """Find out if nearly all boxes of a split make sense only in another form; said once, with the numbers."""
    form = objects.form
    return [] if form is None else [Finding(kind_of_form(form), split, _describe(form, objects.file_boxes))]


def kind_of_form(form: BoxForm) -> FindingKind:
    """Return the kind of finding that names a form."""
    return _KINDS.get((form.unit, form.layout or "")) or _KINDS_OF_UNITS[form.unit]


def find_misfits(objects: ObjectTable, split: str) -> list[Finding]:
    """Find splits with many boxes that do not fit and no form that explains all, or some in another form."""
    boxes = objects.file_boxes
    findings = []
    for name, mask in stray_boxes(boxes).items():
        # A box that has an area in another form has one as it stands, and was not dropped.
        first = [str(objects.finding(STRAY_FORM, row)) for row in mask.nonzero()[0][:FEWEST].tolist()]
        more = ", ..." if mask.sum() > len(first) else ""
        detail = f"{int(mask.sum()):,} of {len(mask):,} make sense only as {name}: {', '.join(first)}{more}"
        findings.append(Finding(STRAY_FORM, split, detail))
    if has_many_misfits(boxes):
        findings.append(Finding(MANY_BEYOND_IMAGE, split, _count_misfits(boxes)))
    return findings


def has_many_misfits(boxes: FileBoxes) -> bool:
    """Tell whether more boxes do not fit than single mistakes explain."""
    misfits = int((~boxes.fit()).sum())
    return misfits >= FEWEST and misfits > MANY_MISFITS * len(boxes.xywh)


def _describe(form: BoxForm, boxes: FileBoxes) -> str:
    if form.unit == "scaled":
        assert form.scale is not None
        return f"{_count_misfits(boxes)}, as if images were {form.scale:.2g} times as large"
    if form.unit in ("fractions", "percentages"):
        return f"{len(boxes.xywh):,} boxes; {_LAYOUTS[form.layout]}"
    if form.unit == "stated":
        width, height = boxes.stated_sizes[0].tolist()
        own_width, own_height = boxes.sizes[0].tolist()
        sizes = f"file {width:.0f}x{height:.0f}, image {own_width:.0f}x{own_height:.0f}"
        return sizes if boxes.fit().all() else f"{sizes}; {_count_misfits(boxes)}"
    return f"{_count_misfits(boxes)} as they stand; read so, nearly all fit"


def _count_misfits(boxes: FileBoxes) -> str:
    misfits = int((~boxes.fit()).sum())
    return f"{misfits:,} of {len(boxes.xywh):,} boxes have no area inside their image or end beyond it"
