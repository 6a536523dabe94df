"""Commands that take a recipe: splitting, overriding, help."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.cli.arguments import CommandParser
from boxwright.cli.main import main
from boxwright.cli.recipe_arguments import RecipeCommand, parse_recipe_command
from boxwright.compose.options import leaves, options_of
from boxwright.compose.parts import find_part
from boxwright.compose.recipe import SECTIONS
from boxwright.compose.recipe_text import SLOTS
from boxwright.compose.recipes import resolve


def parse(*argv: str) -> RecipeCommand:
    parser = CommandParser("train", description="Train a detector.")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--resume", action="store_true")
    return parse_recipe_command(parser, argv)


def test_own_options_and_the_recipes_are_told_apart() -> None:
    command = parse("--neck", "fpn", "rtdetr_r18", "--data", "d", "--neck.out-channels=64", "--train.budget", "10m")
    assert (command.options.recipe, command.options.data, command.options.resume) == (
        "rtdetr_r18",
        "d",
        False,
    )
    (neck,) = command.recipe.necks
    assert (neck.name, neck.options["out_channels"]) == ("fpn", 64)
    assert command.recipe.train.budget == "10m"
    assert len(command.notes) == 1


def test_image_size_is_short_for_the_inputs() -> None:
    assert parse("rtdetr_r18", "--image-size", "320").recipe.input.image_size == 320
    assert parse("rtdetr_r18", "--image_size=320").recipe.input.image_size == 320


def test_how_long_is_said_in_one_way() -> None:
    """A length that is typed replaces the other kind in the recipe; the tiny one has steps."""
    assert parse("rtdetr_tiny").recipe.train.steps > 0
    budget = parse("rtdetr_tiny", "--train.budget", "10m").recipe.train
    assert (budget.steps, budget.budget) == (None, "10m")
    steps = parse("rtdetr_tiny", "--train.steps", "7").recipe.train
    assert (steps.steps, steps.budget) == (7, None)
    with pytest.raises(ValueError, match="both say how long to train"):
        parse("rtdetr_tiny", "--train.steps", "7", "--train.budget", "10m")


def test_negative_numbers_are_values() -> None:
    with pytest.raises(ValueError, match=r"train.lr is greater than 0, not -1"):
        parse("rtdetr_r18", "--train.lr", "-1")


def test_a_part_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_neck.py").write_text(
        "from torch import nn\n\n\nclass MyNeck(nn.Module):\n"
        '    """Mine.\n\n    Args:\n        gain: how much.\n    """\n\n'
        "    def __init__(self, in_spec, *, gain: float = 1.0):\n        super().__init__()\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "rtdetr_r18", "--neck", "my_neck:MyNeck", "--neck.gain", "2", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "neck: my_neck:MyNeck. Mine. --neck.gain how much. [number; default 1.0; here 2.0]" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "d"], r"which recipe\?"),
        (["rtdetr_r18", "--neck"], r"^--neck needs a value"),
        (["rtdetr_r18", "--neck", "--data", "d"], r"^--neck needs a value"),
        (
            ["rtdetr_r18", "--dta", "d"],
            r"unknown option --dta; did you mean --data\?; see `boxwright train --help`",
        ),
        (["rtdetr_r18", "--dat", "d"], r"unknown option --dat; did you mean --data\?"),
        (["rtdetr_r18", "--budget", "1m"], r"unknown option --budget; did you mean --train.budget\?"),
        (["rtdetr_r18", "--nek", "fpn"], r"unknown option --nek; did you mean --neck\?"),
        (["rtdetr_r18", "extra"], r"unexpected argument 'extra'"),
        (["rtdetr_r18", "--data"], r"--data: expected one argument"),
        (["rtdetr_r18", "--neck.expanson", "1"], r"did you mean 'neck.expansion'\?"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*argv)


def help_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(*argv, "--help")
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_without_a_recipe_says_how_parts_are_swapped(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(capsys)
    assert "usage: boxwright train" in printed
    assert "--data DIR" in printed
    assert "--neck NAME[,NAME...]" in printed
    assert "boxwright train RECIPE --help" in printed


def test_help_with_a_recipe_shows_every_option_with_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(capsys, "rtdetr_r18")
    assert "neck: hybrid_encoder. AIFI" in printed
    recipe = resolve("rtdetr_r18").recipe
    owners = {address: find_part(SLOTS[address], part.name) for address, part in recipe.parts().items()} | SECTIONS
    assert list(owners) == ["backbone", "neck", "head", "input", "augment", "train"]
    for address, owner in owners.items():
        for name, option in leaves(options_of(owner)):
            text = option.help.replace("``", "")
            assert f"--{address}.{name} {text} [{option.describe()}; default" in printed, name
    # Those of groups too.
    assert "--head.decoder.num_layers decoder layers. [integer; default 6; here 3]" in printed
    assert "[number; default 1.0; here 0.5]" in printed
    assert "--input.mean" in printed
    assert "default [0.0, 0.0, 0.0]" in printed
    assert "--augment.flip" in printed
    assert "--train.backbone_lr" in printed
    assert "in_spec" not in printed


def test_help_is_that_of_the_swapped_part(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(capsys, "rtdetr_r18", "--neck", "fpn,identity")
    assert "--neck.0.out_channels width of every level that goes out. [integer; default 256]" in printed
    assert "neck.1: identity. Hands the levels on unchanged. (no options)" in printed
    assert "--neck.expansion" not in printed
