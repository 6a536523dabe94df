"""``boxwright list``: what parts and recipes there are. Imports none of them."""

from __future__ import annotations

from boxwright.cli.arguments import CommandParser
from boxwright.compose.parts import FOLDERS, list_parts, part_summary
from boxwright.compose.recipes import list_recipes, recipe_summary


def run(argv: list[str]) -> int:
    """Print names with what they are, one line each."""
    parser = CommandParser("list", description="List the parts and recipes that there are.")
    parser.add_argument("kind", nargs="?", choices=[*FOLDERS, "recipes"], help="only these; all if left out")
    kind = parser.parse(argv).kind
    tables: dict[str, dict[str, str]] = {
        folder: {name: part_summary(folder, name) for name in list_parts(folder)} for folder in FOLDERS
    }
    tables["recipes"] = {name: recipe_summary(name) for name in list_recipes()}
    for title, summaries in tables.items():
        if kind in (None, title):
            print(f"{title}:")
            for name, summary in summaries.items():
                print(f"  {name:18}  {summary}")
    return 0
