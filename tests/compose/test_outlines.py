"""Options of parts as their source states them, against those of the imported classes."""

from __future__ import annotations

import inspect
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from boxwright.compose import outlines
from boxwright.compose.draft import AUGMENTATION
from boxwright.compose.options import Option, leaves, options_of
from boxwright.compose.outlines import UNREAD, Outline, outline_dataclass, outline_part
from boxwright.compose.parts import FOLDERS, Folder, find_part, list_parts
from boxwright.compose.recipes import describe_options, list_recipes, resolve
from boxwright.compose.values import plain
from boxwright.contracts import SizedBackbone

PARTS = [(folder, name) for folder in FOLDERS for name in list_parts(folder)]


def assert_same(outline: Outline, owner: type) -> None:
    """Every option is told by the source alone, in the order of the signature: type, default and help."""
    assert outline.is_complete
    assert outline.summary == (inspect.getdoc(owner) or "").partition("\n")[0]
    expected = dict(leaves(options_of(owner)))
    outlined = dict(leaves(outline.options))
    assert list(outlined) == list(expected)
    for dotted, option in outlined.items():
        assert describe(option) == describe(expected[dotted]), dotted


def describe(option: Option) -> tuple[object, ...]:
    return option.annotation, option.default, type(option.default), option.help


@pytest.mark.parametrize(("folder", "name"), PARTS)
def test_parts(folder: Folder, name: str) -> None:
    outline, part = outline_part(folder, name), find_part(folder, name)
    assert_same(outline, part)
    assert outline.size_option == (part.size_option if isinstance(part, SizedBackbone) else None)


def test_augmentation() -> None:
    module, name = AUGMENTATION.split(":")
    assert_same(outline_dataclass(module, name), getattr(import_module(module), name))


@pytest.mark.parametrize("recipe", list_recipes())
def test_values_are_those_of_the_resolved_recipe(recipe: str) -> None:
    resolved = resolve(recipe).recipe
    parts = {address: (part.name, part.options) for address, part in resolved.parts().items()}
    sections = {section: ("", vars(getattr(resolved, section))) for section in ("input", "augment", "train")}
    owners = describe_options(recipe)
    assert [owner.address for owner in owners] == [*parts, *sections]
    for owner in owners:
        name, options = (parts | sections)[owner.address]
        assert owner.name == name
        for dotted, value in owner.values.items():
            expected = plain(options)
            for key in dotted.split("."):
                expected = expected[key]
            assert plain(value) == expected, f"{owner.address}.{dotted}"


def test_what_the_source_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boxwright" / "necks").mkdir(parents=True)
    source = """
        import math
        from elsewhere import Group, Kind

        __all__ = ["Neck"]
        ONE, TWO = 1 / 9, -2

        class Neck:
            def __init__(self, in_spec, *, a=ONE, b: int = TWO, c: float = math.pi, d: Kind = 3, e: Group = Group(x=1)):
                pass
        """
    (tmp_path / "boxwright" / "necks" / "neck.py").write_text(textwrap.dedent(source))
    monkeypatch.setattr(outlines, "_ROOT", tmp_path)
    outline = outline_part("necks", "neck")
    defaults = {name: option.default for name, option in outline.options.items()}
    assert defaults == {"a": 1 / 9, "b": -2, "c": UNREAD, "d": 3, "e": UNREAD}
    assert not outline.is_complete
