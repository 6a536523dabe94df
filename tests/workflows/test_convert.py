"""``boxwright convert``: ours, the layouts of other projects, model cards; and ``boxwright info`` of what comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import boxwright
from boxwright.checkpoints import passport_of, read_checkpoint
from boxwright.cli.main import main
from boxwright.passport import Passport, TrainingData
from boxwright.weights.recognize import find_kind
from boxwright.weights.source import Layout
from boxwright.workflows import convert as conversion
from heard import Heard

SMALL: dict[str, Any] = {
    "image_size": 96,
    "input.max_size": 160,
    "backbone.width": 8,
    "neck.num_layers": 1,
    "neck.feedforward_dim": 32,
    "head.decoder.num_layers": 1,
    "head.decoder.feedforward_dim": 32,
    "head.num_queries": 7,
}
CATEGORIES = [boxwright.Category(1, "cat"), boxwright.Category(5, "red fox")]
PASSPORT = Passport(
    version="0.1",
    recipe="mine",
    data=TrainingData(name="foxes", num_images=7),
    metrics={"AP": 0.25},
    parent=Passport(version="0.0", recipe="older"),
)
LAYOUTS = [
    ("detr_r50", "hf", "theirs"),
    ("detr_r50", "detr", "theirs.pth"),
    ("retinanet_r18_fpn", "torchvision", "theirs.safetensors"),
]
"""A recipe, a layout that has a place for passports, and a name to write to."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, ``m.safetensors``, and its detector in Hugging Face layout, ``hf``; not to be written to."""
    folder = tmp_path_factory.mktemp("converted")
    torch.manual_seed(0)
    detector = boxwright.build("detr_r50", categories=CATEGORIES, overrides=SMALL)
    detector.save(folder / "m.safetensors")
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(folder / "gray.jpg")
    arguments = ["--to", "hf", "--card", "--images", str(folder / "gray.jpg")]
    assert main(["convert", str(folder / "m.safetensors"), str(folder / "hf"), *arguments]) == 0
    return folder


def test_into_another_layout_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "red fox"}
    assert main(["convert", str(folder / "hf"), str(tmp_path / "back.safetensors")]) == 0
    printed = capsys.readouterr().out.splitlines()
    num_tensors = len(load_file(folder / "hf" / "model.safetensors"))
    assert printed[0] == f"hf_detr: {len(load_file(tmp_path / 'back.safetensors'))} tensors taken, 0 skipped"
    assert num_tensors > 300
    assert printed[-1] == f"written as boxwright and read back: {tmp_path / 'back.safetensors'}"
    ours, back = (boxwright.load(path) for path in (folder / "m.safetensors", tmp_path / "back.safetensors"))
    assert [category.name for category in back.categories] == ["cat", "red fox"]
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    passport = passport_of(read_checkpoint(tmp_path / "back.safetensors"))
    assert passport is not None
    assert passport.origin is not None
    assert (passport.recipe, passport.origin.kind, passport.origin.source) == ("detr_r50", "hf_detr", f"{folder}/hf")
    assert len(passport.origin.sha256 or "") == 64


def test_options_that_change_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = str(folder / "hf"), tmp_path / "x.pt"
    assert main(["convert", source, str(out), "--input.mean", "[0,0,0]", "--train.lr", "3e-4"]) == 0
    note = "find less: mean 0.485,0.456,0.406 became 0.0,0.0,0.0: --input.mean 0.485,0.456,0.406"
    assert note in capsys.readouterr().err
    detector = boxwright.load(out)
    assert detector.input_format.mean == (0.0, 0.0, 0.0)
    assert detector.recipe is not None
    assert detector.recipe.to_dict()["train"]["lr"] == 3e-4


def test_what_the_layout_does_not_say_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = type(find_kind("hf_detr"))
    write = source.write

    def write_without_preprocessor(self: Any, detector: boxwright.Detector) -> Layout:
        layout = write(self, detector)
        return replace(layout, files={"config.json": layout.files["config.json"]})

    monkeypatch.setattr(source, "write", write_without_preprocessor)
    with pytest.warns(UserWarning, match="read back they mean .*input.image_size 800 instead of 96"):
        boxwright.convert(folder / "m.safetensors", tmp_path / "theirs", to="hf_detr")


def untrained_retinanet(path: Path) -> boxwright.Detector:
    """Write one that finds nothing in any image."""
    torch.manual_seed(0)
    overrides = {"image_size": 96, "backbone.width": 8, "head.anchors.anchor_grid": "padded_input"}
    detector = boxwright.build("retinanet_r18_fpn", categories=CATEGORIES, overrides=overrides).eval()
    detector.passport = PASSPORT
    detector.save(path)
    return detector


def test_what_files_do_not_say_is_said_whatever_is_found(tmp_path: Path) -> None:
    detector = untrained_retinanet(tmp_path / "m.safetensors")
    assert not len(detector.predict(np.zeros((90, 120, 3), np.uint8)))
    heard = Heard()
    boxwright.convert(tmp_path / "m.safetensors", tmp_path / "x.pth", to="torchvision", observer=heard)
    options, classes, passport = heard.notes
    for changed in ("image_size 800 instead of 96", "antialias False", "resize_floats True", "size_rule torchvision"):
        assert f"input.{changed}" in options
    assert "cat is class_0, red fox is class_1" in classes
    assert "no place for the passport" in passport


@pytest.mark.parametrize("option", ["auxiliary", "distillation.teacher"])
def test_what_only_teaches_a_head_stays_behind(option: str, tmp_path: Path) -> None:
    """Other projects have no such heads; what is predicted is the same without them."""
    torch.manual_seed(0)
    values: dict[str, Any] = {"auxiliary": ["atss"], "distillation.teacher": "vit_tiny_patch16_224"}
    overrides = {f"head.supervision.{option}": values[option], "image_size": 64}
    overrides |= {"neck.offer_attended": option != "auxiliary"}
    detector = boxwright.build("rtdetr_r18", categories=CATEGORIES, overrides=overrides).eval()
    detector.save(tmp_path / "m.safetensors")
    result = boxwright.convert(tmp_path / "m.safetensors", tmp_path / "x.pth", to="rtdetr", observer=Heard())
    beginning = f"head.{option.partition('.')[0]}."
    taught = [name for name in detector.state_dict() if name.startswith(beginning)]
    assert taught
    assert list(result.left_out) == taught
    again = boxwright.load(tmp_path / "x.pth", overrides={"image_size": 64})
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    one, other = detector.predict(image), again.predict(image)
    assert len(one) > 0
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_other_names_of_classes_are_listed() -> None:
    own, cocos = ([boxwright.Category(i, f"{kind} {i}") for i in range(80)] for kind in ("mine", "theirs"))
    lines = conversion._list_other_classes(own, cocos)
    assert len(lines) == 80
    assert conversion._shorten(lines).endswith("mine 2 is theirs 2 and 77 more")
    assert conversion._list_other_classes(own, own) == []
    assert conversion._list_other_classes(own[:1], own[:2]) == ["None is mine 1"]


@pytest.mark.parametrize(("recipe", "to", "name"), LAYOUTS)
def test_the_passport_goes_along(recipe: str, to: str, name: str, tmp_path: Path) -> None:
    if recipe == "detr_r50":
        detector = boxwright.build("detr_r50", categories=CATEGORIES, overrides=SMALL)
        detector.passport = PASSPORT
        detector.save(tmp_path / "m.safetensors")
    else:
        untrained_retinanet(tmp_path / "m.safetensors")
    heard = Heard()
    boxwright.convert(tmp_path / "m.safetensors", tmp_path / name, to=to, observer=heard)
    assert not any("passport" in note for note in heard.notes)
    facts = boxwright.info(tmp_path / name, observer=heard).model
    assert facts is not None
    passport = facts.passport
    assert (passport.data, passport.metrics, passport.parent) == (PASSPORT.data, PASSPORT.metrics, PASSPORT.parent)
    assert passport.origin is not None
    assert passport.origin.source == str(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hf", "m.safetensors"], "m.safetensors exists already and is not overwritten"),
        (["hf", "hf"], "hf exists already and is not overwritten"),
        (["hf", "new.safetensors", "--card"], "a model card needs a folder; give its name, without .safetensors"),
        (["m.safetensors", "new.safetensors", "--to", "hf"], "this layout has several files; give the name of a fold"),
        (["hf", "new", "--images", "gray.jpg"], r"images are for the model card: ask for one too \(--card\)"),
        (["hf", "new", "--to", "caffe"], "there is no layout 'caffe' to write; there are hf, "),
        (["hf", "new", "--to", "hf_rtdetr"], "the layout 'hf_rtdetr' cannot hold this detector: hf_rtdetr: "),
        (["nothing.pt", "new"], "nothing.pt: no such file"),
        (["hf", "new", "--neck.nonsense", "3"], "neck.nonsense: unknown neck detr_encoder option 'nonsense'"),
        (["gray.jpg", "new"], "gray.jpg: not a file of weights, or a damaged one; it is a JPEG image"),
    ],
)
def test_what_cannot_be_is_one_line(
    folder: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.replace("\\", "") in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("to", [None, "hf"])
def test_what_reads_back_otherwise_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str | None
) -> None:
    def compare(expected: Any, stored: Any) -> None:
        changed = {name: tensor + 1 if "head" in name else tensor for name, tensor in stored.items()}
        original(expected, changed)

    original = conversion._compare
    monkeypatch.setattr(conversion, "_compare", compare)
    with pytest.raises(ValueError, match="reads back otherwise than it was written: nothing is kept"):
        boxwright.convert(folder / "m.safetensors", tmp_path / "out", to=to)
    assert not list(tmp_path.iterdir())


def test_a_file_of_torch_with_keys_around_the_weights(tmp_path: Path) -> None:
    layout = Layout(tensors={"a": torch.ones(2)}, file_name="x.pth", wrap=("ema", "module"))
    conversion._write_layout(layout, tmp_path / "x.pth")
    stored = torch.load(tmp_path / "x.pth", weights_only=True)
    assert stored.keys() == {"ema"}
    assert torch.equal(stored["ema"]["module"]["a"], torch.ones(2))


def test_the_model_card(folder: Path, tmp_path: Path) -> None:
    text = (folder / "hf" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter == {
        "library_name": "transformers",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "boxwright", "detr", "resnet"],
    }
    assert "cat, red fox." in body
    assert "| mean | [0.485, 0.456, 0.406] |" in body
    assert "![images/gray.jpg](images/gray.jpg)" in body
    assert (folder / "hf" / "images" / "gray.jpg").is_file()
    ours = boxwright.convert(folder / "hf", tmp_path / "mine", card=True)
    assert ours.out == tmp_path / "mine"
    assert {path.name for path in ours.out.iterdir()} == {"model.safetensors", "README.md"}
    assert "source: " in (ours.out / "README.md").read_text()
    # A folder with a checkpoint of ours is a source, also on the hub.
    assert len(boxwright.load(tmp_path / "mine").categories) == 2


def test_info_of_a_model(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["info", str(folder / "hf"), "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts == boxwright.info(folder / "hf").to_json()
    model = facts["model"]
    assert model["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "red fox"}]
    assert model["input"]["size_rule"] == "transformers"
    # Also those that are defaults here, where the source has set them.
    assert {"backbone.width": 8, "head.num_queries": 7, "head.decoder.num_heads": 8}.items() <= model["options"].items()
    assert model["passport"]["origin"]["kind"] == "hf_detr"
    assert facts["params"] == sum(part["params"] for part in facts["parts"]) > 1e5
    assert main(["info", str(folder / "m.safetensors"), "--image-size", "128"]) == 0
    printed = capsys.readouterr().out
    assert "GMAC at 128 x 128" in printed
    assert "2 classes: cat, red fox" in printed
    assert "options that the weights need:\n  backbone." in printed
    assert "  backbone.width 8\n" in printed
    assert "  head.num_queries 7\n" in printed
    assert f"  - source: {folder / 'm.safetensors'} (boxwright)" in printed


def test_a_changed_option_of_a_part_is_noted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, name in enumerate(("m.safetensors", "hf")):
        for command in (["info"], ["convert"], ["predict"]):
            out = {"info": [], "convert": [str(tmp_path / f"{index}.pt")]}.get(command[0], [str(folder / "gray.jpg")])
            more = ["--out", str(tmp_path / name)] if command == ["predict"] else []
            assert main([*command, str(folder / name), *out, *more, "--neck.num_heads", "4"]) == 0
            (note,) = [line for line in capsys.readouterr().err.splitlines() if "neck.num_heads" in line]
            assert note.endswith("neck.num_heads 8 became 4: --neck.num_heads 8")


def test_prediction_takes_it(folder: Path, tmp_path: Path) -> None:
    """Both make the same network input of this image, and find the same."""
    rows = []
    for name in ("m.safetensors", "hf"):
        out = tmp_path / f"{name}.json"
        arguments = ["--out", str(tmp_path / name), "--json", str(out), "--threshold", "0"]
        assert main(["predict", str(folder / name), str(folder / "gray.jpg"), *arguments]) == 0
        rows.append(json.loads(out.read_text()))
    assert len(rows[0]) == 7
    assert [row["bbox"] for row in rows[0]] == [row["bbox"] for row in rows[1]]
    assert {row["category_name"] for row in rows[1]} <= {"cat", "red fox"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt"], "missing.pt: no such file"),
        (["hf", "--num-classes", "3"], "num_classes is for recipes; this model has classes of its own"),
        (["hf", "--jsn"], "unknown option --jsn; did you mean --json?"),
        (["detr_r5"], "unknown recipe 'detr_r5'; did you mean 'detr_r50'?"),
    ],
)
def test_info_of_what_is_no_model(
    folder: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["info", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_says_that_models_are_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder / "hf"), "--help"]) == 0
    assert "hf:OWNER/NAME" in capsys.readouterr().out
