"""Lines of text on an image: measured, shortened and drawn, each piece in a font that has its glyphs."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageDraw

from boxwright.drawing.colors import Color
from boxwright.drawing.glyphs import BUILT_IN, GlyphRun, clean_text, load_font, split_runs

_ELLIPSIS = "..."
_LEAST_LETTERS = 3
"""Letters that a shortened name keeps, at least."""


@dataclass(frozen=True)
class Lettering:
    """A line of text in a size, measured.

    Args:
        runs: its pieces from left to right.
        size: of the fonts, in pixels.
        width: in pixels.
        ascent: pixels of its highest letter above the baseline.
        descent: pixels of its lowest letter below the baseline.
    """

    runs: tuple[GlyphRun, ...]
    size: int
    width: int
    ascent: int
    descent: int

    @property
    def text(self) -> str:
        """Its letters."""
        return "".join(run.text for run in self.runs)

    @property
    def padding(self) -> int:
        """Pixels between the letters and the edge of their label."""
        return max(1, round(self.size / 7))

    @property
    def label_size(self) -> tuple[int, int]:
        """Width and height in pixels, with padding."""
        return self.width + 2 * self.padding, self.ascent + self.descent + 2 * self.padding

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int, color: Color) -> None:
        """Draw it with its padding, from a corner on."""
        x, baseline = left + self.padding, top + self.padding + self.ascent
        for run in self.runs:
            draw.text((x, baseline), run.text, font=load_font(run.file, self.size), fill=color, anchor="ls")
            x += _advance(run, self.size)


@dataclass(frozen=True)
class Typesetter:
    """Makes lines of text of a size.

    Args:
        font: file of a font that comes before others; None for the built-in one and those of the system.
    """

    font: str | Path | None = None

    def can_draw(self, name: str) -> bool:
        """Tell whether fonts of this machine have all glyphs of a name, which has some."""
        return self._runs(name) is not None

    def letter(self, name: str, detail: str, size: int, most: int | None = None) -> Lettering | None:
        """Measure a name with its detail; the name is shortened where both are wider than the label may be.

        Args:
            name: in any script.
            detail: after the name, as its score: ASCII, never shortened.
            size: of the letters, in pixels.
            most: width of the label in pixels, at most; not limited where None.

        Returns:
            the line, or None where no font has the glyphs, or too few letters of the name would be left.
        """
        runs = self._runs(name)
        if runs is None:
            return None
        whole = _measure((*runs, *_plain(detail)), size)
        if most is None or whole.label_size[0] <= most:
            return whole
        letters = "".join(run.text for run in runs)
        low, high, best = _LEAST_LETTERS, len(letters) - 1, None
        while low <= high:  # the longest beginning of the name that is not too wide
            middle = (low + high) // 2
            short = _measure((*_beginning(runs, middle), *_plain(_ELLIPSIS + detail)), size)
            if short.label_size[0] <= most:
                low, best = middle + 1, short
            else:
                high = middle - 1
        return best

    def _runs(self, name: str) -> tuple[GlyphRun, ...] | None:
        text = clean_text(name)
        if not text:
            return None
        return split_runs(text, self.font) or split_runs(_without_accents(text), self.font)


def _plain(text: str) -> tuple[GlyphRun, ...]:
    return (GlyphRun(BUILT_IN, text),) if text else ()


def _without_accents(text: str) -> str:
    """Latin letters without their accents, where no font has these."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(one for one in parts if not unicodedata.combining(one))


def _beginning(runs: tuple[GlyphRun, ...], count: int) -> tuple[GlyphRun, ...]:
    """The first letters of a text, not cut between a letter and its marks."""
    letters = "".join(run.text for run in runs)
    while count > 1 and unicodedata.category(letters[count]) in ("Mn", "Mc", "Me", "Cf"):
        count -= 1
    kept: list[GlyphRun] = []
    for run in runs:
        kept += [GlyphRun(run.file, run.text[:count])] if count > 0 else []
        count -= len(run.text)
    return (*kept[:-1], GlyphRun(kept[-1].file, kept[-1].text.rstrip()))


@lru_cache(maxsize=4096)
def _measure(runs: tuple[GlyphRun, ...], size: int) -> Lettering:
    ascent, descent = _line_height(size)
    for run in runs:
        if run.file != BUILT_IN:
            _, top, _, bottom = load_font(run.file, size).getbbox(run.text, anchor="ls")
            ascent, descent = max(ascent, round(-top)), max(descent, round(bottom))
    return Lettering(runs, size, sum(_advance(run, size) for run in runs), ascent, descent)


def _advance(run: GlyphRun, size: int) -> int:
    """Pixels that a piece takes: whole ones, so that the space before the next is not rounded away."""
    return math.ceil(load_font(run.file, size).getlength(run.text))


@lru_cache(maxsize=64)
def _line_height(size: int) -> tuple[int, int]:
    """Pixels of the built-in font above and below the baseline, one for all labels."""
    _, top, _, bottom = load_font(BUILT_IN, size).getbbox("Ag", anchor="ls")
    return round(-top), round(bottom)
