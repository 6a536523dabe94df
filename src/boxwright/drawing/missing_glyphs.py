"""A line on classes whose names no font of this machine can draw."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from boxwright.drawing.detections import class_numbers
from boxwright.drawing.glyphs import clean_text, missing_characters
from boxwright.drawing.lettering import Typesetter
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright_runtime.printable_names import printable
from boxwright_runtime.structures import Category

_MOST_GLYPHS = 10


def describe_missing_glyphs(
    categories: Sequence[Category], labels: Collection[int] | None = None, style: DrawingStyle = AUTOMATIC
) -> str | None:
    """Name the glyphs that no font has, and the numbers that drawings have instead of names; None where all have some.

    Args:
        categories: label ``i`` is ``categories[i]``.
        labels: of classes that are drawn; all where None.
        style: of the drawings.
    """
    typesetter = Typesetter(style.font)
    numbered = {
        number: category.name
        for label, (number, category) in enumerate(zip(class_numbers(categories), categories, strict=True))
        if (labels is None or label in labels) and not typesetter.can_draw(category.name)
    }
    if not numbered or style.labels == "none":
        return None
    missing = missing_characters(map(clean_text, numbered.values()), style.font)
    glyphs = ", ".join(f"{one} (U+{ord(one):04X})" for one in missing[:_MOST_GLYPHS])
    more = f" and {len(missing) - _MOST_GLYPHS} more" if len(missing) > _MOST_GLYPHS else ""
    names = ", ".join(f"{number} = {printable(name)}" for number, name in numbered.items())
    return (
        f"no font has the glyphs {glyphs}{more}: drawings have numbers for the names of these classes, {names}; "
        "install a font that has them, or name the file of one (--font)"
    )
