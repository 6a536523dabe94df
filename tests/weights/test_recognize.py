"""The contract of sources, over their folder: each is described, and recognizes its own files and no other's.

A source ``weights/sources/KIND.py`` has its examples in ``tests/weights/examples/KIND.py``: a function ``examples()``
that returns ``SourceFiles``, made with ``source_checks.example_files`` of names of tensors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from boxwright.weights.recognize import errors_in_one_line, find_kind, list_kinds, recognize
from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files

KINDS = list_kinds()


@cache
def examples_of(kind: str) -> list[SourceFiles]:
    """Make the examples of a kind."""
    if not (Path(__file__).parent / "examples" / f"{kind}.py").is_file():
        pytest.fail(f"tests/weights/examples/{kind}.py is missing; write examples() of files of this kind")
    examples: list[SourceFiles] = import_module(f"weights.examples.{kind}").examples()
    assert examples
    return examples


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_says_what_it_is(kind: str) -> None:
    source = find_kind(kind)
    assert source.title
    assert source.example
    assert "\n" not in source.title + source.example
    assert callable(getattr(source, "describe", None)) != callable(getattr(source, "describe_backbone", None))
    assert not vars(source), "a source has no state"


def test_titles_differ() -> None:
    titles = [find_kind(kind).title for kind in KINDS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_recognized_by_their_own_source_alone(kind: str) -> None:
    for files in examples_of(kind):
        assert [other for other in KINDS if find_kind(other).recognizes(files)] == [kind]
        assert recognize(files)[0] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_else_files_lack_is_one_line(kind: str) -> None:
    """A few names recognize a kind; a source may need any other."""
    source = find_kind(kind)
    for files in examples_of(kind):
        incomplete = replace(files, config={**files.config, "backbone_config": 3, "num_labels": "x", "d_model": None})
        for one in (files, incomplete):
            describe = getattr(source, "describe", None) or source.describe_backbone
            try:
                with errors_in_one_line(one, source):
                    describe(one)
            except ValueError as error:
                line = str(error)
            else:
                line = ""
            assert "\n" not in line
            assert line.startswith("example: ") or not line


@pytest.mark.parametrize("kind", KINDS)
def test_no_source_stumbles_over_files_of_any_kind(kind: str) -> None:
    """Nothing there, names of another project, and configurations that are not what they should be."""
    source = find_kind(kind)
    names = ("a.weight", "model.diffusion_model.input_blocks.0.0.weight", "h.0.attn.c_attn.weight")
    for config in ({}, {"model_type": None}, {"architecture": 3}, {"architectures": "x", "backbone_config": []}):
        for files in (example_files(config=config), example_files(*names, config=config)):
            assert source.recognizes(files) is False


def test_files_of_no_kind() -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "b", "c", "d")
    with pytest.raises(ValueError, match=r"^example: weights of no known kind") as caught:
        recognize(example_files(*names))
    line = str(caught.value)
    assert "\n" not in line
    assert all(kind in line for kind in KINDS)
    assert "its first tensors of 4 are model.diffusion_model.input_blocks.0.0.weight, b, c" in line
