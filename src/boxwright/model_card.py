"""Model cards: the page of a model in a repository, of what its passport says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boxwright.passport import Passport, TrainingData
from boxwright.structures import Category

CARD = "README.md"
"""Name of the file of a card."""

CARD_THRESHOLD = 0.3
"""Least score of the detections that are drawn on a card's images."""

_SHOWN_CLASSES = 20

_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0
gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++
osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
"""Identifiers of licenses that the hub's front matter may have; any other license is ``other``, with a name."""


def write_card_text(
    passport: Passport,
    categories: Sequence[Category],
    recipe: Mapping[str, Any],
    *,
    title: str,
    library: str = "boxwright",
    usage: str,
    images: Sequence[str] = (),
) -> str:
    """Write the text of a model card, Markdown with front matter as the Hugging Face hub reads it.

    Args:
        passport: origin and history of the weights.
        categories: classes of the model.
        recipe: as plain values.
        title: first line.
        library: that loads the files.
        usage: Python that loads them.
        images: names of drawn images beside the card.
    """
    blocks = [
        _front_matter(passport, recipe, library),
        f"# {title}",
        _summary(recipe, categories),
        f"```python\n{usage}\n```",
        *_metrics(passport),
        "## Classes\n\n" + _list_classes(categories),
        "## Preprocessing\n\n" + _table(("option", "value"), _rows(recipe["input"])),
        "## Where the weights come from\n\n" + "\n".join(describe_passport(passport)),
        *(["## Examples\n\n" + "\n".join(f"![{name}]({name})" for name in images)] if images else []),
    ]
    return "\n\n".join(blocks) + "\n"


def describe_passport(passport: Passport, depth: int = 0) -> list[str]:
    """Describe origin and history in lines of a Markdown list, the youngest first."""
    indent = "  " * depth
    lines = [f"{indent}- {_name(passport)}"]
    lines += [f"{indent}  - {line}" for line in _facts(passport)]
    if passport.parent is not None:
        lines += [f"{indent}  - trained on from:", *describe_passport(passport.parent, depth + 2)]
    if passport.backbone is not None:
        lines += [f"{indent}  - begun with the backbone of:", *describe_passport(passport.backbone, depth + 2)]
    return lines


def find_license(passport: Passport) -> str | None:
    """Return the license of the weights as their source states it, or of the nearest that they were trained from."""
    if passport.origin is not None and passport.origin.license is not None:
        return passport.origin.license
    parent = passport.parent or passport.backbone
    return None if parent is None else find_license(parent)


def _name(passport: Passport) -> str:
    recipe = passport.recipe or "a detector"
    if passport.data is not None:
        return f"{recipe}, trained with Boxwright {passport.version}"
    return f"{recipe}, read by Boxwright {passport.version}" if passport.origin else f"{recipe}, of unknown training"


def _facts(passport: Passport) -> Iterator[str]:
    """List what is known of the weights, without their parent."""
    if (origin := passport.origin) is not None:
        yield f"source: {origin.source} ({origin.kind})" + (f", revision {origin.revision}" if origin.revision else "")
        if origin.sha256:
            yield f"SHA-256: {origin.sha256}"
        yield f"license, as the source states it: {origin.license or 'none stated'}"
    if (data := passport.data) is not None:
        yield f"data set: {data.name}, {data.num_images} images" + _describe_pseudo(data) + _data_hash(data)
    if passport.metrics:
        yield "metrics: " + ", ".join(f"{name} {value:.4f}" for name, value in passport.metrics.items())


def _describe_pseudo(data: TrainingData) -> str:
    return f", {data.num_pseudo} of them with pseudo-labels of weight {data.pseudo_weight}" if data.num_pseudo else ""


def _data_hash(data: TrainingData) -> str:
    """Name the hash that a reader can check; that of the content, where there is not one annotation file."""
    if data.sha256:
        return f", annotations with SHA-256 {data.sha256}"
    return f", content with SHA-256 {data.content_sha256}" if data.content_sha256 else ""


def _front_matter(passport: Passport, recipe: Mapping[str, Any], library: str) -> str:
    tags = list(dict.fromkeys(["object-detection", "boxwright", recipe["head"]["name"], recipe["backbone"]["name"]]))
    lines = ["---"]
    if (license := find_license(passport)) is not None:
        lines += _license_lines(license)
    lines += [f"library_name: {library}", "pipeline_tag: object-detection", "tags:", *(f"- {tag}" for tag in tags)]
    if passport.data is not None:
        lines += ["datasets:", f"- {_quote(passport.data.name)}"]
    if passport.metrics:
        lines += ["metrics:", *(f"- {_quote(name)}" for name in passport.metrics)]
    return "\n".join([*lines, "---"])


def _license_lines(license: str) -> list[str]:
    """Write a license as the hub takes it: an identifier, or a name without spaces; the card has the full text."""
    if license.lower() in _LICENSES.split():
        return [f"license: {license.lower()}"]
    name = "-".join(re.findall(r"[a-z0-9.]+", license.lower()))
    return ["license: other", f"license_name: {_quote(name or 'unnamed')}"]


def _summary(recipe: Mapping[str, Any], categories: Sequence[Category]) -> str:
    parts = ", ".join(part["name"] for part in (recipe["backbone"], *recipe["neck"], recipe["head"]))
    return f"Object detector of {len(categories)} classes, made of {parts}."


def _metrics(passport: Passport) -> Iterator[str]:
    """Make a block of the metrics of the weights, where there are any."""
    if passport.metrics:
        data = "" if passport.data is None else f", on the validation split of {passport.data.name}"
        rows = [(name, f"{value:.4f}") for name, value in passport.metrics.items()]
        yield f"## Metrics{data}\n\n" + _table(("metric", "value"), rows)


def _list_classes(categories: Sequence[Category]) -> str:
    shown = ", ".join(category.name for category in categories[:_SHOWN_CLASSES])
    more = len(categories) - _SHOWN_CLASSES
    return shown + (f" and {more} more." if more > 0 else ".")


def _rows(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in options.items()]


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _quote(text: str) -> str:
    """Write a text as YAML reads it back, whatever is in it."""
    plain = text.replace("-", "").replace(".", "").replace("_", "").replace(" ", "")
    return text if plain.isalnum() and not plain.isdecimal() else "'" + text.replace("'", "''") + "'"
