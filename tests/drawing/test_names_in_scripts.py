"""Names in eight scripts: drawn in fonts that have their glyphs, or numbered, never as empty rectangles."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, features

from boxwright.drawing import DrawingStyle, describe_missing_glyphs, draw_detections, font_files, glyphs
from boxwright.drawing.character_map import character_ranges
from boxwright.drawing.detections import detected_objects
from boxwright.drawing.font_files import list_font_files
from boxwright.drawing.glyphs import BUILT_IN, clean_text, missing_characters, split_runs
from boxwright.drawing.labels import Label, place_labels
from boxwright.drawing.lettering import Typesetter
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

NAMES = {
    "Latin": "Zellkörper",
    "Greek": "κύτταρο",
    "Cyrillic": "клетка",
    "Hebrew": "תא דם",
    "Arabic": "خلية",
    "Chinese": "血细胞",
    "Japanese": "さいぼう",
    "Korean": "세포",
}
CATEGORIES = tuple(Category(index + 1, name) for index, name in enumerate(NAMES.values()))
STORED = Path(__file__).with_name("eight_scripts.png")


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "list_font_files", tuple)


def detections() -> Detections:
    """One object of each class, in two rows."""
    boxes = torch.tensor(
        [[20.0 + 95 * (i % 4), 30 + 100 * (i // 4), 90 + 95 * (i % 4), 110 + 100 * (i // 4)] for i in range(8)]
    )
    return Detections(boxes, torch.linspace(0.95, 0.6, 8), torch.arange(8), None, CATEGORIES)


def draw(style: DrawingStyle = DrawingStyle()) -> Image.Image:  # noqa: B008
    return draw_detections(
        np.full((230, 400, 3), 128, dtype=np.uint8), detections(), CATEGORIES, threshold=0.0, style=style
    )


def labels_of(style: DrawingStyle = DrawingStyle()) -> list[Label]:  # noqa: B008
    return place_labels(detected_objects(detections(), CATEGORIES, 1.0, (230, 400)), (400, 230), style)


def build_font(path: Path, characters: str) -> Path:
    """Write a font in which each character is a bar of a height of its own, and what is missing another one."""
    names = [".notdef", *(f"bar{index}" for index in range(len(characters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(one): name for one, name in zip(characters, names[1:], strict=True)})
    outlines = {}
    for index, name in enumerate(names):
        pen = TTGlyphPen(None)
        height = 800 - 700 * index // len(names)
        pen.moveTo((50, 0))
        for point in ((50, height), (450, height), (450, 0)):
            pen.lineTo(point)
        pen.closePath()
        outlines[name] = pen.glyph()
    builder.setupGlyf(outlines)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (500, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def differing_part(a: Image.Image, b: Image.Image) -> float:
    """Part of pixels that differ clearly: anti-aliasing is another one in every version of Pillow."""
    return float((np.abs(np.asarray(a).astype(int) - np.asarray(b)) > 80).any(2).mean())


@pytest.mark.usefixtures("no_fonts")
def test_numbers_where_no_font_has_the_glyphs() -> None:
    labels = [label.lettering.text for label in labels_of() if label.lettering is not None]
    assert labels == ["Zellkorper 0.95", "2: 0.90", "3: 0.85", "4: 0.80", "5: 0.75", "6: 0.70", "7: 0.65", "8: 0.60"]
    drawing = draw()
    with Image.open(STORED) as stored:
        assert drawing.size == stored.size
        assert differing_part(drawing, stored.convert("RGB")) < 0.005
    assert STORED.stat().st_size < 50_000


@pytest.mark.usefixtures("no_fonts")
def test_the_stored_image_tells_numbers_from_empty_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "_covered", lambda _file, characters: characters)
    glyphs._split.cache_clear()
    try:
        labels = [label.lettering.text for label in labels_of() if label.lettering is not None]
        assert "参" not in "".join(labels)
        assert labels[5] == "血细胞 0.70"
        with Image.open(STORED) as stored:
            drawing = draw()
            assert drawing.size != stored.size or differing_part(drawing, stored.convert("RGB")) > 0.01
    finally:
        glyphs._split.cache_clear()


@pytest.mark.parametrize("script", NAMES)
def test_a_font_of_the_system_has_the_glyphs(script: str) -> None:
    """Independently of how they are looked for: fontTools reads the tables of the font that is taken."""
    name = clean_text(NAMES[script])
    runs = split_runs(name)
    if runs is None:
        pytest.skip(f"no font of this machine has the glyphs of {script}: {''.join(missing_characters([name]))}")
    for run in runs:
        if run.file != BUILT_IN:
            cmap = TTFont(run.file, fontNumber=0).getBestCmap()
            assert all(ord(one) in cmap for one in run.text if not one.isspace())
    label = labels_of()[list(NAMES).index(script)]
    assert label.kind == "name"
    assert label.lettering is not None
    assert label.lettering.text.startswith(name[:3])


def test_a_font_of_the_system_that_has_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    characters = "".join(sorted(set("".join(NAMES.values())) - {" "}))
    file = build_font(tmp_path / "bars.ttf", characters)
    monkeypatch.setattr(glyphs, "list_font_files", lambda: (str(file),))
    assert [label.kind for label in labels_of()] == ["name"] * 8
    assert [label.lettering.runs[0].file for label in labels_of() if label.lettering] == [str(file)] * 8
    assert describe_missing_glyphs(CATEGORIES) is None
    assert draw().size == (400, 230)
    # Each bar is as high as its glyph: none is that of a missing one.
    font = glyphs.load_font(str(file), 200)
    heights = {one: font.getbbox(one, anchor="ls")[1] for one in characters}
    missing = font.getbbox("\uffff", anchor="ls")[1]
    assert missing not in heights.values()
    assert len(set(heights.values())) == len(characters)


@pytest.mark.parametrize("ending", ["otf", "ttc"])
def test_character_maps_are_those_of_font_tools(tmp_path: Path, ending: str) -> None:
    """Of 16 bits and of all planes, in a file and in a collection."""
    file = build_font(tmp_path / "bars.ttf", "aбф中한🧫")
    if ending == "ttc":
        collection = TTCollection()
        collection.fonts = [TTFont(file), TTFont(build_font(tmp_path / "other.ttf", "xyz"))]
        collection.save(file := tmp_path / "bars.ttc")
    ranges = character_ranges(str(file))
    for one in "aбф中한🧫":
        assert ((ranges[:, 0] <= ord(one)) & (ord(one) <= ranges[:, 1])).any(), one
    for one in "bжх国하🧬x":
        assert not ((ranges[:, 0] <= ord(one)) & (ord(one) <= ranges[:, 1])).any(), one


@pytest.mark.parametrize("length", [0, 3, 11, 40, 300])
def test_damaged_fonts_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    file = build_font(tmp_path / "bars.ttf", "血细胞")
    file.write_bytes(file.read_bytes()[:length])
    monkeypatch.setattr(glyphs, "list_font_files", lambda: (str(file),))
    assert split_runs("血细胞") is None


def test_words_of_several_scripts_have_several_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        str(build_font(tmp_path / f"{name}.ttf", characters)) for name, characters in (("a", "血胞"), ("b", "세포"))
    ]
    monkeypatch.setattr(glyphs, "list_font_files", lambda: tuple(files))
    assert split_runs("cell 血胞 세포 of 血") == (
        (BUILT_IN, "cell"), (files[0], " 血胞"), (files[1], " 세포"), (BUILT_IN, " of"), (files[0], " 血")
    )  # fmt: skip
    lettering = Typesetter().letter("cell 血胞 세포", " 0.50", 20)
    assert lettering is not None
    assert lettering.text == "cell 血胞 세포 0.50"
    assert split_runs("血포") is None


def test_a_named_font_comes_first(tmp_path: Path) -> None:
    file = build_font(tmp_path / "bars.ttf", "celκύταρο")
    style = DrawingStyle(font=file)
    assert split_runs("cell", file) == ((str(file), "cell"),)
    assert split_runs("cells", file) == ((BUILT_IN, "cells"),)
    greek = labels_of(style)[1]
    assert greek.lettering is not None
    assert greek.lettering.runs[0] == (str(file), "κύτταρο")


@pytest.mark.usefixtures("no_fonts")
def test_the_note() -> None:
    line = describe_missing_glyphs(CATEGORIES, [0, 5, 7])
    assert line == (
        "no font has the glyphs 血 (U+8840), 细 (U+7EC6), 胞 (U+80DE), 세 (U+C138), 포 (U+D3EC): drawings have numbers "
        "for the names of these classes, 6 = 血细胞, 8 = 세포; install a font that has them, or name the file of one "
        "(--font)"
    )
    assert describe_missing_glyphs(CATEGORIES, [0]) is None
    assert describe_missing_glyphs(CATEGORIES, style=DrawingStyle(labels="none")) is None
    assert " and 18 more: " in (describe_missing_glyphs(CATEGORIES) or "")


def test_names_without_letters() -> None:
    for name in ("", " \n", "\x00\x1b", "\ud800"):
        assert clean_text(name) == ""
        assert not Typesetter().can_draw(name)


def test_decomposed_letters_are_composed() -> None:
    assert clean_text("Zellko\u0308rper") == clean_text("Zellk\u00f6rper") == "Zellkörper"


def test_a_name_is_not_cut_before_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = clean_text("қѝ\u0330а\u0303\u0330б\u0303\u0323\u0330вгде")
    file = build_font(tmp_path / "bars.ttf", "".join(sorted(set(name))))
    monkeypatch.setattr(glyphs, "list_font_files", lambda: (str(file),))
    widths = range(20, 150, 5)
    shortened = [
        line.text for most in widths if (line := Typesetter().letter(name, "", 20, most)) and line.text != name
    ]
    assert len(set(shortened)) > 2
    for text in shortened:
        kept = text.removesuffix("...")
        assert text.endswith("...")
        assert name.startswith(kept)
        assert not unicodedata.combining(name[len(kept)])


def test_fonts_for_plain_text_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "a/NotoSerif.otf",
        "b/NotoSans-Bold.ttf",
        "c/NotoSans.TTF",
        "NotoSans[wght].ttf",
        "LastResort.otf",
        "a.txt",
    ]
    for name in names:
        (tmp_path / "fonts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fonts" / name).write_bytes(b"")
    monkeypatch.setattr(font_files, "_folders", lambda: [tmp_path / "fonts", tmp_path / "none"])
    monkeypatch.setattr(font_files, "find_spec", lambda _name: None)
    listed = [Path(file).name for file in font_files.list_font_files.__wrapped__()]
    assert listed == ["NotoSans.TTF", "NotoSans-Bold.ttf", "NotoSans[wght].ttf", "NotoSerif.otf"]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_DATA_DIRS": "/here:/there"}, "/there/fonts"),
        ("linux", {"XDG_DATA_HOME": "/own"}, "/own/fonts"),
        ("darwin", {}, "/Library/Fonts"),
        ("win32", {"WINDIR": "/Windows"}, "/Windows/Fonts"),
    ],
)
def test_folders_of_fonts(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Path(folder) in font_files._folders()


def test_fonts_of_this_machine_can_be_opened() -> None:
    files = list_font_files()
    if not files:
        pytest.skip("this machine has no fonts in the folders that its system knows")
    assert not any(word in Path(file).name.lower() for file in files for word in ("lastresort", "emoji"))
    assert Path(files[0]).is_file()
    assert features.check("freetype2")


if __name__ == "__main__":
    glyphs.list_font_files = tuple
    draw().save(STORED, optimize=True)
