"""Glyphs for names in any script: the fonts that have them, and the characters that no font has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont, features

from boxwright.drawing.character_map import character_ranges
from boxwright.drawing.font_files import list_font_files
from boxwright_runtime.printable_names import printable

BUILT_IN = ""
"""Stands for the font that Pillow contains, where a file is named."""

_TEST_SIZE = 24
_UNASSIGNED = ("\uffff", "\U0010ffff")
"""No characters: every font draws them as it draws those that it does not have."""


class GlyphRun(NamedTuple):
    """A piece of a text in one font: its file, or ``BUILT_IN``."""

    file: str
    text: str


@lru_cache(maxsize=64)  # each of them may hold a file open
def load_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font for letters of so many pixels.

    Raises:
        OSError: the file is no font, or has no letters of this size.
    """
    font = ImageFont.load_default(size) if file == BUILT_IN else ImageFont.truetype(file, size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # that of a size is
    return font


def check_font(file: str | Path) -> None:
    """Raise ``FileNotFoundError`` if there is no such file, ``ValueError`` if it is no font that can be drawn with."""
    if not Path(file).exists():
        raise FileNotFoundError(f"{printable(file)}: no such font; give a file that ends with .ttf, .otf or .ttc")
    try:
        load_font(str(file), _TEST_SIZE)
    except OSError as error:
        raise ValueError(f"{printable(file)} is no font that can be drawn with ({error}); give another one") from None


def clean_text(text: str) -> str:
    """Return a name on one line, composed (NFC), without control characters."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    kept = "".join(one for one in text if unicodedata.category(one) not in ("Cc", "Cs", "Cn"))
    # Without Raqm, which arranges complex scripts, marks that join letters would be drawn themselves.
    return kept if features.check("raqm") else "".join(one for one in kept if not _is_invisible(one))


def split_runs(text: str, font: str | Path | None = None) -> tuple[GlyphRun, ...] | None:
    """Split a text into pieces that fonts of this machine can draw; None where no font has one of its glyphs.

    Args:
        text: as ``clean_text`` returns it.
        font: file to try before the built-in font and those of the system.
    """
    first = (BUILT_IN,) if font is None else (str(font), BUILT_IN)
    # The fonts of the system are looked for where the first ones do not do.
    return _split(text, first) or _split(text, first + list_font_files())


def missing_characters(texts: Iterable[str], font: str | Path | None = None) -> list[str]:
    """List the characters of texts that no font of this machine has, in their order."""
    files = (BUILT_IN, *(() if font is None else (str(font),)), *list_font_files())
    characters = dict.fromkeys(one for text in texts for one in text if _needs_glyph(one))
    missing = frozenset(characters)
    for file in files:
        if not missing:
            break
        missing -= _covered(file, missing)
    return [one for one in characters if one in missing]


@lru_cache(maxsize=4096)
def _split(text: str, files: tuple[str, ...]) -> tuple[GlyphRun, ...] | None:
    """One font for all of a text, or else for each of its words."""
    if (file := _first_covering(text, files)) is not None:
        return (GlyphRun(file, text),)
    words = text.split(" ")
    if len(words) == 1:
        return None
    runs: list[GlyphRun] = []
    for index, word in enumerate(words):
        if (file := _first_covering(word, files)) is None:
            return None
        spaced = word if index == 0 else f" {word}"
        if runs and runs[-1].file == file:
            runs[-1] = GlyphRun(file, runs[-1].text + spaced)
        else:
            runs.append(GlyphRun(file, spaced))
    return tuple(runs)


def _first_covering(text: str, files: Sequence[str]) -> str | None:
    characters = frozenset(one for one in text if _needs_glyph(one))
    return next((file for file in files if characters <= _covered(file, characters)), None)


@lru_cache(maxsize=16384)
def _covered(file: str, characters: frozenset[str]) -> frozenset[str]:
    """Select the characters that a font has a glyph for, which is drawn, and unlike what stands for missing ones."""
    mapped = characters if file == BUILT_IN else _mapped(file, characters)
    if not mapped:
        return mapped
    try:
        font = load_font(file, _TEST_SIZE)
    except OSError:  # damaged, or of color images in one size only
        return frozenset()
    missing = {_drawn(font, one) for one in _UNASSIGNED}
    return frozenset(one for one in mapped if (glyph := _drawn(font, one))[0] and glyph not in missing)


def _mapped(file: str, characters: frozenset[str]) -> frozenset[str]:
    ranges = character_ranges(file)
    return frozenset(one for one in characters if ((ranges[:, 0] <= ord(one)) & (ord(one) <= ranges[:, 1])).any())


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[bytes, tuple[int, int], float]:
    """Pixels of one character, empty where there are none, with their size and its width."""
    mask = font.getmask(character)
    return bytes(mask) if any(mask.size) else b"", mask.size, font.getlength(character)


def _needs_glyph(character: str) -> bool:
    return not character.isspace() and not _is_invisible(character)


def _is_invisible(character: str) -> bool:
    """Joiners, marks of direction and selectors of variants, which arrange other letters."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f" or character == "\u034f"
