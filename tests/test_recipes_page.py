"""The page on recipes: every recipe is on it, with the numbers that it has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import list_recipes, resolve
from boxwright.structures import Category

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "src" / "boxwright" / "recipes"
COLUMNS = ("length", "rate over time", "rate", "batch", "optimizer", "clipping", "warm-up", "average")


def decays_norms_by_name(decayed: Sequence[str]) -> bool:
    """Norms of the neck or the head are among what decays, and not they alone."""
    return any("norm" in path for path in decayed) and not all(path.endswith(".weight") for path in decayed)


def decays_all_but_backbone(decayed: Sequence[str]) -> bool:
    """All of the neck and the head decays, and of the backbone what is named beside them."""
    return {"necks", "head"} <= set(decayed)


def cells(recipe: Recipe) -> tuple[str, ...]:
    """The numbers of a recipe as the page writes them."""
    train = recipe.train
    optimizer, schedule = train.optimizer, train.schedule
    over_time = {
        "constant": "constant",
        "flat_cosine": f"flat until {(schedule.milestones or (0,))[0]}, then a cosine to {schedule.final_lr_ratio:g}",
        "cosine": f"cosine, last {schedule.decay_fraction:g}",
        "step": f"× {schedule.final_lr_ratio:g} after {', '.join(map(str, schedule.milestones or ()))}"
        if schedule.milestones
        else f"× {schedule.final_lr_ratio:g}, last {schedule.decay_fraction:g}",
    }[schedule.decay]
    backbone = "" if train.backbone_lr is None else f", backbone {train.backbone_lr:g}"
    name = {"sgd": f"SGD {optimizer.momentum:g}", "adamw": "AdamW"}[optimizer.name]
    decayed = optimizer.decayed_names or ()
    single = all(path.endswith(".weight") for path in decayed)
    norms = ", norms too" if optimizer.norm_decay else f", {len(decayed)} norms too" if single else ", biases too"
    if decays_norms_by_name(decayed):
        norms = ", some norms and biases too"
    elif decays_all_but_backbone(decayed):
        norms = ", norms outside of the backbone too"
    elif "backbone" in decayed:
        norms = f", {'biases and ' if len(decayed) > 1 else ''}all of the backbone too"
    warmup = "" if schedule.ema_warmup is None else f", warm-up {schedule.ema_warmup}"
    return (
        f"{train.epochs} epochs" if train.steps is None else f"{train.steps} steps",
        over_time,
        f"{train.lr:g}{backbone}",
        str(train.batch_size),
        f"{name}, decay {optimizer.weight_decay:g}{norms if optimizer.norm_decay or optimizer.decayed_names else ''}",
        f"{optimizer.max_grad_norm:g}" if optimizer.max_grad_norm else "none",
        str(schedule.warmup_steps),
        f"{train.ema_decay:g}{warmup}" if train.ema_decay else "none",
    )


def table() -> dict[str, dict[str, str]]:
    """The cells of the page by recipe and column; several recipes may share a row."""
    lines = [line for line in (ROOT / "docs" / "recipes.md").read_text().splitlines() if line.startswith("|")]
    titles = [title.strip() for title in lines[0].strip("|").split("|")]
    actual: dict[str, dict[str, str]] = {}
    for line in lines[2:]:
        row = dict(zip(titles, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        for name in re.findall(r"`(\w+)`", row["recipe"]):
            assert name not in actual, f"{name} is in two rows"
            actual[name] = row
    return actual


def test_every_recipe_is_on_the_page() -> None:
    assert sorted(table()) == list_recipes()


@pytest.mark.parametrize("name", list_recipes())
def test_the_numbers_are_those_of_the_recipe(name: str) -> None:
    """Published values stand beside ours where they differ: ``4 (published: 16)``."""
    row = table()[name]
    ours = tuple(row[column].partition(" (published: ")[0] for column in COLUMNS)
    assert ours == cells(resolve(name).recipe)
    if any("(published: " in row[column] for column in COLUMNS):
        assert len(row["differences, and why"]) > 10


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_cites_a_number_only_where_it_is_the_published_configuration(name: str) -> None:
    row, text = table()[name], (RECIPES / f"{name}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    expected = comments[next(i for i, line in enumerate(comments) if line.startswith("# Expected:"))]
    cites = bool(re.search(r"published, from|torchvision's", expected))
    assert cites == bool(re.match(r"\d", row["published AP"])), expected
    if cites:
        assert not any("(published: " in row[column] for column in COLUMNS)
        number = re.search(r"(?:AP|AP of boxes|top-1) ([\d.]+)", expected)
        assert number is not None
        assert number[1] in re.findall(r"[\d.]+", row["published AP"]), expected
    if "one by one" in row["differences, and why"]:
        assert any(line.startswith("# Differs: images are resized one by one,") for line in comments)
    assert "as above" not in row["differences, and why"].lower(), "rows are read one by one"


def is_norm(module: torch.nn.Module) -> bool:
    return "Norm" in type(module).__name__ and not any(True for _ in module.children())


@pytest.mark.parametrize(
    "name",
    [name for name in list_recipes() if (o := resolve(name).recipe.train.optimizer).lr_factors or o.decayed_names],
)
def test_names_of_parameters_in_recipes_exist(name: str) -> None:
    recipe = resolve(name).recipe
    with torch.device("meta"):
        detector = build_resolved(recipe, categories=[Category(1, "one")])
    names = [f".{path}." for path, parameter in detector.named_parameters() if parameter.requires_grad]
    optimizer = recipe.train.optimizer
    for expected in optimizer.lr_factors or {}:
        # In their order; others may lie between.
        pattern = ".*".join(f"[.]{name}(?=[.])" for name in expected.split("."))
        assert any(re.search(pattern, path) for path in names), expected
    for expected in optimizer.decayed_names or ():
        assert any(f".{expected}." in path for path in names), expected
    decayed = optimizer.decayed_names or ()
    vectors = {
        name for name, parameter in detector.named_parameters() if parameter.requires_grad and parameter.ndim == 1
    }
    matched = {name for name in vectors if any(f".{one}." in f".{name}." for one in decayed)}
    if decayed and all(one.endswith(".weight") for one in decayed):
        assert len(matched) == len(decayed), "one parameter for each name"
    elif decays_all_but_backbone(decayed):
        scales = {name for name in vectors if name.startswith("backbone.") and name.endswith(".gamma")}
        assert matched == scales | {name for name in vectors if not name.startswith("backbone.")}
    elif decayed and not decays_norms_by_name(decayed):
        norms = {path for path, module in detector.named_modules() if is_norm(module)}
        biases = {name for name in vectors if name.rpartition(".")[0] not in norms} if len(decayed) > 1 else set()
        backbone = {name for name in vectors if "backbone" in decayed and name.startswith("backbone.")}
        assert matched == biases | backbone, "all biases but norms', and all of the backbone where it is named"
