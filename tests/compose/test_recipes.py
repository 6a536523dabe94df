"""Recipe files, overrides and resolution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from boxwright.compose.recipe import SECTIONS, PartOptions, Recipe
from boxwright.compose.recipe_text import SECTION_NAMES
from boxwright.compose.recipes import list_recipes, load_recipe, recipe_summary, resolve
from boxwright.compose.train_options import TrainOptions
from boxwright_runtime.input_format import InputFormat

RECIPES = ["rtdetr_r101", "rtdetr_r18", "rtdetr_r34", "rtdetr_r50", "rtdetr_r50_m"]

NO_EXTRA = {"norm": "none", "extra_levels": 0, "extra": "max_pool", "extra_relu": True}
"""Options that a resolved FPN has besides its width."""


def resolved(recipe: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A resolved recipe as plain values."""
    return resolve(recipe, overrides).recipe.to_dict()


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_resolves_and_resolving_again_changes_nothing(name: str) -> None:
    recipe, notes = resolve(name)
    assert notes == ()
    assert resolve(recipe) == (recipe, ())
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    # As plain values it is data: what a file gives back is the same.
    content = recipe.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert resolve(yaml.safe_load(yaml.safe_dump(content))).recipe == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_opens_with_its_command_and_what_to_expect(name: str) -> None:
    folder = Path(__file__).parents[2] / "src" / "boxwright" / "recipes"
    text = (folder / f"{name}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for what in ("Command:  boxwright ", "Hardware: ", "Time: ", "Expected: "):
        assert any(line.startswith(f"# {what}") for line in comments), what
    assert len(text.splitlines()) <= 30
    assert 10 < len(recipe_summary(name)) < 120


def test_the_recipes_of_the_paper_are_there() -> None:
    assert set(RECIPES) <= set(list_recipes())


def test_what_the_published_recipes_set() -> None:
    assert resolved("rtdetr_r18")["head"]["decoder"]["num_layers"] == 3
    assert resolved("rtdetr_r18")["backbone"]["norm"] == "batch"
    assert resolved("rtdetr_r34")["head"]["decoder"]["num_layers"] == 4
    medium = resolved("rtdetr_r50_m")
    assert (
        medium["neck"][0]["expansion"],
        medium["head"]["decoder"]["num_layers"],
        medium["head"]["decoder"]["eval_layers"],
    ) == (
        0.5,
        6,
        3,
    )
    large = resolved("rtdetr_r50")
    assert (large["backbone"]["norm"], large["backbone"]["frozen_stages"]) == ("frozen", 1)
    largest = resolved("rtdetr_r101")
    assert (largest["neck"][0]["hidden_dim"], largest["neck"][0]["feedforward_dim"]) == (384, 2048)
    assert largest["train"]["backbone_lr"] == 1e-6


def test_a_recipe_is_typed() -> None:
    recipe = resolve("rtdetr_r18", {"train.lr": "3e-4"}).recipe
    assert isinstance(recipe.train, TrainOptions)
    assert recipe.train.lr == 3e-4
    assert recipe.input == InputFormat(image_size=640)
    assert recipe.backbone == PartOptions("resnet_vd", recipe.backbone.options)
    assert recipe.backbone.options["levels"] == ("c3", "c4", "c5")
    assert list(recipe.parts()) == ["backbone", "neck", "head"]
    assert list(resolve("rtdetr_r18", {"neck": "fpn,hybrid_encoder"}).recipe.parts())[1:3] == ["neck.0", "neck.1"]
    assert (recipe.task, resolve("resnet18_classifier").recipe.task) == ("detection", "classification")
    with pytest.raises(AttributeError):
        recipe.train = TrainOptions()  # type: ignore[misc]


def test_sections_have_one_list_of_names() -> None:
    assert tuple(SECTIONS) == SECTION_NAMES


def test_a_file_is_parsed_without_any_command_line_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("argparse.ArgumentParser.__init__", lambda self, *_, **__: made.append(self))
    resolve("faster_rcnn_r50_fpn", {"train.steps": "3"})
    assert made == []


class TestOverrides:
    def test_options_by_dotted_key(self) -> None:
        recipe = resolved(
            "rtdetr_r18", {"neck.num-blocks": "1", "train.epochs": 5, "image_size": "320", "augment.flip": 0}
        )
        assert recipe["neck"][0]["num_blocks"] == 1
        assert recipe["neck"][0]["expansion"] == 0.5
        assert recipe["train"]["epochs"] == 5
        assert recipe["input"]["image_size"] == 320
        assert recipe["augment"]["flip"] == 0.0

    def test_swapping_drops_the_options_of_the_old_part_and_says_so(self) -> None:
        recipe, notes = resolve("rtdetr_r18", {"neck": "fpn"})
        assert recipe.to_dict()["neck"] == [{"name": "fpn", "out_channels": 256, **NO_EXTRA}]
        assert notes == ("neck: hybrid_encoder was replaced by fpn; its options are dropped: expansion=0.5",)

    def test_a_swap_comes_before_options_in_any_order(self) -> None:
        recipe = resolved("rtdetr_r18", {"neck.out_channels": "64", "neck": "fpn"})
        assert recipe["neck"] == [{"name": "fpn", "out_channels": 64, **NO_EXTRA}]

    def test_swapping_for_the_same_part_keeps_its_options(self) -> None:
        recipe, notes = resolve("rtdetr_r18", {"neck": "hybrid_encoder"})
        assert recipe.necks[0].options["expansion"] == 0.5
        assert notes == ()

    @pytest.mark.parametrize(
        "chain",
        ["fpn,hybrid_encoder", "[fpn, hybrid_encoder]", ["fpn", "hybrid_encoder"], "fpn, hybrid-encoder"],
    )
    def test_a_chain(self, chain: Any) -> None:
        recipe = resolved("rtdetr_r18", {"neck": chain, "neck.0.out_channels": 32, "neck.1.num_blocks": 2})
        assert [neck["name"] for neck in recipe["neck"]] == ["fpn", "hybrid_encoder"]
        assert recipe["neck"][0]["out_channels"] == 32
        assert recipe["neck"][1]["num_blocks"] == 2

    def test_a_part_that_stays_in_a_chain_keeps_its_options(self) -> None:
        recipe, notes = resolve("rtdetr_r18", {"neck": "fpn,hybrid_encoder"})
        assert recipe.necks[1].options["expansion"] == 0.5
        assert notes == ()

    @pytest.mark.parametrize("entry", [{"name": "fpn", "out_channels": 128}, "{name: fpn, out_channels: 128}"])
    def test_a_part_with_its_options(self, entry: Any) -> None:
        assert resolved("rtdetr_r18", {"neck": entry})["neck"] == [{"name": "fpn", "out_channels": 128, **NO_EXTRA}]

    def test_a_section_as_a_mapping_keeps_the_rest(self) -> None:
        train = resolved("rtdetr_r101", {"train": {"epochs": 3}})["train"]
        assert (train["epochs"], train["backbone_lr"]) == (3, 1e-6)

    def test_a_part_outside(self, outside: str) -> None:
        recipe = resolved("rtdetr_r18", {"neck": f"{outside}:Scaler", "neck.factor": "2"})
        assert recipe["neck"] == [{"name": f"{outside}:Scaler", "factor": 2.0}]
        assert resolved(recipe) == recipe

    @pytest.mark.parametrize(
        ("recipe", "overrides", "image_size"),
        [
            ("botnet50_classifier", {}, 224),
            ("botnet50_classifier", {"image_size": 1024}, 1024),
            ("botnet50_classifier", {"image_size": 1024, "backbone.image_size": 512}, 512),
            ("botnet50_classifier", {"backbone.image_size": 512}, 512),
            # Tables are made for the longer side of images.
            ("detr_bot50", {}, 1333),
            ("detr_bot50", {"input.image_size": 400, "input.max_size": 667}, 667),
            # Padding has cells too.
            ("detr_bot50", {"input.image_size": 400, "input.max_size": 667, "input.pad_multiple": 32}, 672),
            ("detr_bot50", {"input.pad_multiple": 32}, 1344),
            ("rtdetr_r18", {"backbone": "botnet"}, 640),
            ("rtdetr_r18", {"backbone": {"name": "botnet", "image_size": 96}, "image_size": 64}, 96),
        ],
    )
    def test_position_tables_of_a_backbone_follow_the_size_of_the_input(
        self, recipe: str, overrides: dict[str, Any], image_size: int
    ) -> None:
        assert resolve(recipe, overrides).recipe.backbone.options["image_size"] == image_size

    def test_nothing_is_changed_in_place(self) -> None:
        raw = load_recipe("rtdetr_r18")
        before = json.dumps(raw)
        resolve(raw, {"neck.num_blocks": 1, "train.lr": 1.0, "input": {"image_size": 32}})
        assert json.dumps(raw) == before

    @pytest.mark.parametrize(
        ("short", "whole"),
        [
            ({"train.seed": "3"}, {"train.runtime.seed": 3}),
            ({"train.early-stop": 4}, {"train.schedule.early_stop": 4}),
            ({"train": {"deterministic": True}}, {"train.runtime.deterministic": True}),
            ({"head.num_layers": 2}, {"head.decoder.num_layers": 2}),
            (
                {"head": "retinanet", "head.max_detections": 7},
                {"head": "retinanet", "head.detection.max_detections": 7},
            ),
        ],
    )
    def test_options_of_groups_by_their_last_name(self, short: dict[str, Any], whole: dict[str, Any]) -> None:
        assert resolve("rtdetr_r18", short) == resolve("rtdetr_r18", whole)
        parts = {name: value for name, value in whole.items() if name == "head"}
        assert resolve("rtdetr_r18", short).recipe != resolve("rtdetr_r18", parts).recipe

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"train.seed": -1}, r"^train.runtime.seed is at least 0, not -1"),
            ({"train.seed": 1, "train.runtime.seed": 2}, r"^train.runtime.seed: given twice, once as train.seed; give"),
            (
                {"head": "mask_rcnn", "head.num_convs": 2},
                r"^head.num_convs: unknown .* did you mean 'head.rpn.num_convs' or 'head.mask.num_convs'\?",
            ),
            ({"train.name": "sgd"}, r"^train.name: unknown .*; did you mean 'train.optimizer.name'\?"),
            ({"neck.expanson": 1}, r"^neck.expanson: unknown .* 'expanson'; did you mean 'neck.expansion'\?"),
            ({"neck.expansion": "x"}, r"^neck.expansion: expected number; got 'x'$"),
            ({"neck": "fnp"}, r"^unknown neck 'fnp'; did you mean 'fpn'\?"),
            ({"nekc": "fpn"}, r"^unknown section 'nekc'; did you mean 'neck'\?"),
            ({"image_sise": 3}, r"^unknown section 'image_sise'; did you mean 'image_size'\?"),
            ({"image_size": 100}, r"^input: image_size must be a positive multiple of 32"),
            (
                {"neck": "fpn,fpn", "neck.out_channels": 3},
                r"^neck.out_channels: 2 necks are chained, say which",
            ),
            ({"neck.1.out_channels": 3}, r"^neck.1.out_channels: there is no neck.1, the last is neck.0$"),
            ({"backbone": "resnet_vd,resnet_vd"}, r"^backbone: takes one part, got 2$"),
            ({"neck": []}, r"^neck: takes at least one part, got 0$"),
            ({"neck": 3}, r"^neck: expected options as a mapping, got 3$"),
            ({"neck": {"out_channels": 3}}, r"^neck: a part is a name or a mapping with 'name'"),
            ({"neck": "[fpn"}, r"^neck: cannot read '\[fpn'"),
            ({"neck.name": "fpn"}, r"^neck.name: a part is swapped by neck itself"),
            ({"train": "fast"}, r"^train: expected options as a mapping, got 'fast'$"),
            ({"train.budget": "10x"}, r"^train.budget is a number and s, m or h"),
        ],
    )
    def test_mistakes(self, overrides: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            resolve("rtdetr_r18", overrides)
        assert "\n" not in str(caught.value)


class TestFiles:
    BODY = "backbone: {name: resnet_vd, depth: 18}\nneck: [fpn, identity]\nhead: rtdetr\n"

    def test_names_alone_are_enough(self, tmp_path: Path) -> None:
        recipe = resolved(write(tmp_path, self.BODY))
        assert [neck["name"] for neck in recipe["neck"]] == ["fpn", "identity"]
        assert recipe["head"]["decoder"]["num_layers"] == 6

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                BODY.replace("depth", "detph"),
                r"mine.yaml: backbone.detph: unknown .*; did you mean 'backbone.depth'\?",
            ),
            (BODY.replace("18", "19"), r"mine.yaml: backbone.depth: expected one of 18, 34, 50, 101; got 19"),
            (BODY.replace("fpn", "fnp"), r"mine.yaml: unknown neck 'fnp'; did you mean 'fpn'"),
            (BODY + "trian: {lr: 1}\n", r"mine.yaml: unknown section 'trian'; did you mean 'train'"),
            (BODY + "train: {lr: 1, lr: 2}\n", r"mine.yaml: not a YAML file: 'lr' appears twice .*line 4"),
            (BODY + "head: rtdetr\n", r"mine.yaml: not a YAML file: 'head' appears twice"),
            (BODY + "train: 3\n", r"mine.yaml: train: expected options as a mapping, got 3"),
            (BODY + "train: {lr: 0}\n", r"mine.yaml: train.lr is greater than 0"),
            (BODY + "input: {image_size: 50}\n", r"mine.yaml: input: image_size must be"),
            ("backbone: resnet_vd\nhead: rtdetr\n", r"section 'neck' is missing; write 'neck: identity'"),
            ("just words", r"mine.yaml: a recipe has sections"),
            ("a: [1", r"mine.yaml: not a YAML file"),
            ("a: !!python/object/apply:os.getcwd []", r"mine.yaml: not a YAML file"),
            ("", r"mine.yaml: a recipe has sections"),
        ],
    )
    def test_mistakes_name_the_file(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            resolve(write(tmp_path, text))
        assert "\n" not in str(caught.value)

    def test_a_misspelled_recipe(self) -> None:
        with pytest.raises(ValueError, match=r"unknown recipe 'rtdetr_r81'; did you mean 'rtdetr_r18'\?"):
            resolve("rtdetr_r81")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            resolve(tmp_path / "none.yaml")
