"""Commands that take a recipe: ``boxwright train rtdetr_r18 --data DIR --neck bifpn --neck.repeats 3``.

Arguments that begin with a section of a recipe (``--neck...``, ``--train...``) are set aside first and change the
recipe; argparse sees the rest. Values are checked where those of a recipe file are, in ``compose``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from boxwright.cli.arguments import CommandParser, add_trust_argument, import_trusted
from boxwright.compose.draft import OptionOwner
from boxwright.compose.options import Option, leaves
from boxwright.compose.recipe_text import ALIASES, SECTION_NAMES, SLOTS
from boxwright.compose.recipes import describe_options, resolve
from boxwright.compose.values import plain

if TYPE_CHECKING:
    from boxwright.compose.recipe import Recipe

_GENERAL_HELP = """\
A recipe is a name from `boxwright list recipes` or the path of a .yaml file. Any part of it can be swapped
and any option be set; what there is, with types and defaults: `{prog} RECIPE --help`
  --backbone NAME, --head NAME       swap a part; names from `boxwright list`, or package.module:Class
  --neck NAME[,NAME...]              likewise; several make a chain
  --neck.OPTION VALUE                an option of a part; --neck.1.OPTION that of the second of a chain
  {sections}
"""

_COLUMN = 30

BACKBONE_WEIGHTS = "--backbone.weights"
"""An option of the command and not of the recipe: what a run began with is not there when its weights are loaded."""

_LENGTHS = ("train.epochs", "train.steps", "train.budget")
"""Ways to say how long to train: the one that is typed replaces the one in the recipe."""


class RecipeCommand(NamedTuple):
    """The arguments of a command: its own options, the resolved recipe, notes on it for the user, and what it was
    resolved with."""

    options: argparse.Namespace
    recipe: Recipe
    notes: tuple[str, ...]
    overrides: Mapping[str, Any]


def parse_recipe_command(
    parser: CommandParser,
    argv: Sequence[str],
    *,
    sections: Sequence[str] = SECTION_NAMES,
    check: Callable[[argparse.Namespace], None] | None = None,
) -> RecipeCommand:
    """Read the arguments of a command that takes a recipe.

    Args:
        parser: with the command's own options; RECIPE and ``--image-size`` are added here.
        argv: the arguments.
        sections: which sections' options ``--help`` shows.
        check: of the command's own options; raises ``ValueError`` for what is missing, before anything is imported.

    Raises:
        ValueError: anything wrong, in one line.
        SystemExit: after ``--help``, with status 0.
    """
    add_trust_argument(parser)
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="name or .yaml file")
    parser.add_argument("--image-size", metavar="N", dest="_image_size", help="the same as --input.image_size N")
    own, overrides = take_overrides(argv)
    wants_help = any(argument in ("-h", "--help") for argument in own)
    options, rest = parser.parse_known_args([argument for argument in own if argument not in ("-h", "--help")])
    if wants_help and options.recipe is None:
        listed = ", ".join(f"--{section}.OPTION" for section in sections)
        general = _GENERAL_HELP.format(prog=parser.prog, sections=f"{listed} VALUE".ljust(35) + "likewise")
        print(f"{parser.format_help()}\n{general}", end="")
        raise SystemExit(0)
    if options.recipe is None:
        parser.error("which recipe? give a name from `boxwright list recipes` or the path of a .yaml file")
    if rest or wants_help:
        # Without torch, but for parts outside Boxwright: a slip of the keyboard is answered at once.
        import_trusted(options.trust)
        owners = describe_options(options.recipe, overrides)
        if rest:
            known = [f"--{owner.address}.{name}" for owner in owners for name, _ in leaves(owner.options)]
            parser.reject(rest[0], [*(f"--{address}" for address in (*SLOTS, *SECTION_NAMES)), *known])
        print(f"{parser.format_help()}\n{recipe_help(owners, sections)}", end="")
        raise SystemExit(0)
    if check is not None:
        check(options)
    import_trusted(options.trust)
    recipe, notes = resolve(options.recipe, overrides)
    return RecipeCommand(options, recipe, notes, overrides)


def recipe_help(owners: Sequence[OptionOwner], sections: Sequence[str] = SECTION_NAMES) -> str:
    """Describe every option of every part of a recipe: help, type and default from its constructor."""
    blocks = []
    for owner in owners:
        if owner.address in SECTION_NAMES and owner.address not in sections:
            continue
        address = owner.address
        title = f"{address}: {owner.name}. {owner.summary}" if owner.name else f"{address}: {owner.summary}"
        options = [
            _option_help(f"{address}.{dotted}", option, plain(owner.values[dotted]))
            for dotted, option in leaves(owner.options)
        ]
        blocks.append("\n".join([title, *(options or ["  (no options)"])]))
    return "\n\n".join(blocks) + "\n"


def _option_help(address: str, option: Option, value: Any) -> str:
    default = plain(option.default)
    facts = f"{option.describe()}; default {_shown(default)}"
    if value != default:
        facts += f"; here {_shown(value)}"
    text = " ".join([option.help.replace("``", ""), f"[{facts}]"]).strip()
    name = f"  --{address} "
    width = max(60, min(120, shutil.get_terminal_size().columns))
    # A name that is too long for its column has a line of its own.
    head = name.ljust(_COLUMN) if len(name) <= _COLUMN else name.rstrip() + "\n" + " " * _COLUMN
    lines = textwrap.wrap(text, width - _COLUMN, break_on_hyphens=False)
    return head + ("\n" + " " * _COLUMN).join(lines)


def _shown(value: Any) -> str:
    """Write a value as in a recipe and on the command line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def take_overrides(argv: Sequence[str], *, except_for: Collection[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Split the arguments into the command's own and what changes the recipe, by dotted key.

    Args:
        argv: all arguments.
        except_for: options of the command that are called like a section of a recipe.
    """
    own: list[str] = []
    overrides: dict[str, str] = {}
    remaining = iter(argv)
    for argument in remaining:
        option, has_value, value = argument.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        if (
            option in (BACKBONE_WEIGHTS, *except_for)
            or not argument.startswith("--")
            or key.partition(".")[0] not in {*SLOTS, *SECTION_NAMES, *ALIASES}
        ):
            own.append(argument)
            continue
        if not has_value:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise ValueError(f"{argument} needs a value, as in `{argument} VALUE`")
        overrides[key] = value
    if any(length in overrides for length in _LENGTHS):
        for other in _LENGTHS[1:]:
            overrides.setdefault(other, "null")
    return own, overrides
