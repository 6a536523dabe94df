"""``boxwright list``: what parts and recipes there are. Imports none of them, but to combine them."""

from __future__ import annotations

from boxwright.cli.arguments import CommandParser
from boxwright.compose.parts import FOLDERS, list_parts, part_summary
from boxwright.compose.recipes import list_recipes, recipe_summary


def run(argv: list[str]) -> int:
    """Print names with what they are, one line each, or which of them fit together."""
    parser = CommandParser("list", description="List the parts and recipes that there are.")
    parser.add_argument("kind", nargs="?", choices=[*FOLDERS, "recipes"], help="only these; all if left out")
    parser.add_argument(
        "--combinations",
        action="store_true",
        help="instead, which backbones, necks and heads fit together with their default options; builds them all",
    )
    options = parser.parse(argv)
    if options.combinations:
        if options.kind:
            parser.error(f"--combinations is about all parts; leave out {options.kind}")
        print("\n".join(combination_table()))
        return 0
    tables: dict[str, dict[str, str]] = {
        folder: {name: part_summary(folder, name) for name in list_parts(folder)} for folder in FOLDERS
    }
    tables["recipes"] = {name: recipe_summary(name) for name in list_recipes()}
    for title, summaries in tables.items():
        if options.kind in (None, title):
            width = max(map(len, summaries))
            print(f"{title}:")
            for name, summary in summaries.items():
                print(f"  {name:{width}}  {summary}")
    return 0


def combination_table() -> list[str]:
    """Tabulate a row per backbone and neck, a column per head; below it, why something does not fit."""
    # Here, not above: a list of names need not wait for torch.
    from boxwright.compose.combinations import combinations

    heads = list_parts("heads")
    fits: dict[tuple[str, str], dict[str, str]] = {}
    problems: list[str] = []
    for backbone, neck, head, problem in combinations():
        if problem is not None and problem not in problems:
            problems.append(problem)
        fits.setdefault((backbone, neck), {})[head] = (
            "yes" if problem is None else f"no ({problems.index(problem) + 1})"
        )
    rows = [("backbone", "neck", *heads), *((*parts, *row.values()) for parts, row in fits.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, *(f"({i}) {problem}" for i, problem in enumerate(problems, start=1))]
