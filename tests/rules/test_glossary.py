"""The words of the field: one word for one thing, in names, docstrings, messages, pages and tests."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from source_files import ROOT, parse, python_files, relative

WORDS = {
    r"pictures?": "image",
    r"colours?\w*|greys?\w*|cent(?:re|red|res)|neighbours?\w*|behaviours?|favour\w*|licence": "American spelling",
    r"misspelt|mitred": "American spelling",
    r"towards|afterwards": "toward, afterward",
    r"(?:normal|optim|initial|recogn|general|visual|serial|summar|minim|maxim|quant|regular|util|organ|real|custom)is"
    r"(?:e[drs]?|ing|ation|ations|able)": "American spelling",
    r"labell(?:ed|ing)|modell(?:ed|ing)|cancell(?:ed|ing)": "American spelling",
    r"canvas(?:es)?(?!_size=)": "padded input (of a batch), input size",
    r"usable": "valid",
    r"survivors?": "kept after NMS",
    r"content sizes?": "valid size",
    r"objects to find|(?<!ground )(?<!ground-)truth": "ground truth, target",
    r"(?<!standard )deviations?": "deltas, offsets",
    r"first weights": "initial weights",
    r"(?<!self\.)(?<!masks\.)(?<!masks\\\.)enlarge[ds]?|enlarging": "upsample; zoom in",
    r"shrinks?|shrinking|shrunk|shrank": "downsample; zoom out",
    r"(?:a|the|its|this|one|least|largest|small|large|equal) share|as shares|shares? of": "weight, fraction, ratio",
    r"headlines?": "summary metrics",
    r"decisive": "primary metric",
}
"""Patterns of whole words that are not used, and the words to use, for prose and for parts of names alike."""

OLD_NAMES = {
    "check_numbers": "check_finite",
    "EqualWidths": "InputProjection",
    "in_rows": "flatten_predictions",
    "LevelwiseBoxes": "auxiliary box heads",
    "num_candidates": "pre_nms_top_k",
    "max_candidates": "pre_nms_top_k",
    "num_proposals": "post_nms_top_k",
    "region_features": "roi_extractor",
    "aspects": "aspect_ratios",
    "light_share": "no_aug_fraction",
    "clip_norm": "max_grad_norm",
    "as_published": "count_as_published",
    "give_backbone": "load_backbone",
    "GivenBackbone": "load backbone weights",
    "jittered": "large_scale_jitter",
    "size_cropped": "random size crop",
    "area_cropped": "random resized crop",
    "content_size": "valid_size",
    "sampled_regions": "sample_regions",
}
"""Names that were renamed."""

VARIABLES = {
    "found": "detections, predictions, matches: the noun that is meant",
    "said": "predictions, messages",
    "wanted": "targets, expected",
    "usable": "valid",
    "place": "index, position",
    "places": "indices, positions",
    "share": "weight, fraction, ratio",
    "shares": "weights, fractions, ratios",
    "fused": "folded (norms), fuse (maps)",
}
"""Words that prose may need, and that name nothing."""

EXCEPTED = (
    "CHANGELOG.md",
    "tests/rules/",
    "tests/golden/",
    "src/boxwright/legacy.py",
    "tests/test_legacy",
    "tests/compose/test_class_options.py",
    "tests/parity/formula.py",
)
"""Files that speak of names as they were, or draw numbers by them."""


def text_files() -> list[Path]:
    """Files of the repository that people read."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.splitlines() if name.endswith((".py", ".md", ".yaml", ".html", ".toml"))]
    return sorted(ROOT / name for name in names if not name.startswith(EXCEPTED) and (ROOT / name).is_file())


@cache
def texts() -> dict[str, str]:
    """Text of each file by its path, without addresses of pages elsewhere."""
    return {relative(path): re.sub(r"https?://\S+", "", path.read_text(encoding="utf-8")) for path in text_files()}


def occurrences(pattern: re.Pattern[str]) -> list[str]:
    """List file, line and text of everything that a pattern matches, and files whose path it matches."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts().items()
        for match in pattern.finditer(text)
    ] + [f"{name}: its name" for name in texts() if pattern.search(name)]


def whole_words(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of whole words; ``_`` ends a word, so that parts of names are words too."""
    return re.compile(rf"(?<![^\W_])(?:{pattern.replace(' ', '[ _]')})(?![^\W_])", re.IGNORECASE)


@pytest.mark.parametrize("pattern", WORDS)
def test_words(pattern: str) -> None:
    offences = occurrences(whole_words(pattern))
    assert not offences, f"say {WORDS[pattern]}:\n" + "\n".join(offences)


@pytest.mark.parametrize(
    "text",
    [
        "Two pictures",
        "test_neighbours.py",
        "misspelt",
        "afterwards",
        "canvas_size",
        "the truth",
        "normalised",
        "a share of it",
        "deviations",
    ],
)
def test_words_that_are_refused(text: str) -> None:
    assert any(whole_words(pattern).search(text) for pattern in WORDS)


@pytest.mark.parametrize(
    "text", ["ground truth", "standard deviation", "levels share a stride", "normalize", "canvas_size="]
)
def test_words_that_are_not(text: str) -> None:
    assert not any(whole_words(pattern).search(text) for pattern in WORDS)


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_names(name: str) -> None:
    offences = occurrences(re.compile(rf"(?<!\w){name}(?!\w)"))
    assert not offences, f"it is called {OLD_NAMES[name]} now:\n" + "\n".join(offences)


@cache
def variables_of(path: Path) -> list[tuple[str, int]]:
    """Names that a file gives, with their lines: variables, arguments, fields, functions and classes."""
    names = []
    for node in ast.walk(parse(path)):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                names.append((name, node.lineno))
    return names


@pytest.mark.parametrize("word", VARIABLES)
def test_variables(word: str) -> None:
    offences = [
        f"{relative(path)}:{line}"
        for path in python_files("src", "tests", "benchmarks")
        for name, line in variables_of(path)
        if name == word and not relative(path).startswith(EXCEPTED)
    ]
    assert not offences, f"nothing is called {word}; say {VARIABLES[word]}:\n" + "\n".join(offences)
