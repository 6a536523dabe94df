"""Bad input: one clear line, exit status 2, and nothing created, overwritten or lost."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.main import main
from boxwright.training import distributed

Capture = pytest.CaptureFixture[str]
Break = Callable[[Path], object]
Refused = Callable[[Sequence[str]], str]


def edit(data: Path, change: Callable[[Any], object], split: str = "train") -> None:
    file = data / "annotations" / f"{split}.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def annotation(**values: Any) -> Break:
    """Changes the third annotation of the training split."""
    return lambda data: edit(data, lambda document: document["annotations"][2].update(values))


def make_image(content: bytes | None) -> Break:
    """Replaces an image by these bytes, or removes it where they are None."""

    def change(data: Path) -> None:
        path = data / "images" / "train_00004.jpg"
        path.unlink() if content is None else path.write_bytes(content)

    return change


def cut(fraction: float) -> Break:
    """Leaves the first part of an image only."""

    def change(data: Path) -> None:
        path = data / "images" / "train_00004.jpg"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])

    return change


def write(name: str, content: str) -> Break:
    return lambda data: (data / name).write_text(content)


def emptied(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


DATA: dict[str, tuple[Break, str]] = {
    "missing": (shutil.rmtree, "data folder {data} does not exist"),
    "empty": (emptied, "data folder {data} is empty"),
    "no annotations": (lambda data: shutil.rmtree(data / "annotations"), "no annotations of a known format; it holds "),
    "no images": (lambda data: shutil.rmtree(data / "images"), "10 missing: train_00000.jpg, "),
    "broken json": (write("annotations/train.json", '{"images": ['), "train.json is not valid JSON: line 1, column 13"),
    "another json": (write("annotations/train.json", "[1, 2]"), "train.json is not a COCO annotation file"),
    "an empty file": (write("annotations/train.json", ""), "train.json is not valid JSON"),
    "broken validation": (write("annotations/val.json", "{"), "val.json is not valid JSON"),
    "unknown category": (annotation(category_id=12345), "category_id 12345 is not in 'categories'"),
    "unknown image": (annotation(image_id=4242), "image_id 4242 is not in 'images'"),
    "NaN": (annotation(bbox=[1, 2, math.nan, 4]), "bbox must be four finite numbers [left, top, width, height], not "),
    "infinity": (annotation(bbox=[1, 2, 3, math.inf]), "bbox must be four finite numbers"),
    "three numbers": (annotation(bbox=[1, 2, 3]), "bbox must be four finite numbers"),
    "five numbers": (annotation(bbox=[1, 2, 3, 4, 5]), "bbox must be four finite numbers"),
    "text in a box": (annotation(bbox=[1, 2, "three", 4]), "bbox must be four finite numbers"),
    "no box": (annotation(bbox=None), "bbox must be four finite numbers"),
    "missing image": (make_image(None), "of 10 images in {data}/images, 1 missing: train_00004.jpg"),
    "text for an image": (make_image(b"no image\n"), "1 unreadable: train_00004.jpg"),
    "an empty image": (make_image(b""), "1 unreadable: train_00004.jpg"),
    "the beginning of an image": (cut(0.02), "1 unreadable: train_00004.jpg"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_trained_on(recipe_file: Path, data: Path, refused: Refused, name: str) -> None:
    """Found before training starts, whichever image it is."""
    change, message = DATA[name]
    change(data)
    line = refused(["train", str(recipe_file), "--data", str(data)])
    assert message.format(data=data) in line


def test_an_annotation_is_named_with_its_file_and_image(recipe_file: Path, data: Path, refused: Refused) -> None:
    edit(data, lambda document: document["annotations"][2].update(bbox=[1, 2, 3], id=77))
    wrong = json.loads((data / "annotations" / "train.json").read_text())["annotations"][2]["image_id"]
    line = refused(["train", str(recipe_file), "--data", str(data)])
    name = f"train_{(wrong - 1003) // 3:05}.jpg"
    assert line.startswith(f"{data}/annotations/train.json: annotation 77 of image '{name}': bbox must be ")
    assert line.endswith("not [1, 2, 3]; correct or delete the annotation")


COMMANDS: dict[str, tuple[str, str]] = {
    "unknown recipe": ("train rtdetr_r81 --data data", "unknown recipe 'rtdetr_r81'; did you mean 'rtdetr_r18'? "),
    "recipe file that is not there": (
        "train other.yaml --data data",
        "other.yaml: no such file; give the path of a recipe",
    ),
    "no data": ("train tiny.yaml", "which data set? give --data DIR, or --train-annotations FILE"),
    "misspelled part": (
        "train tiny.yaml --data data --neck hybrid_encodr",
        "unknown neck 'hybrid_encodr'; did you mean 'hybrid_encoder'? necks: ",
    ),
    "misspelled option of a part": (
        "train tiny.yaml --data data --neck.expanson 1",
        "hybrid_encoder option 'expanson'; did you mean 'neck.expansion'? ",
    ),
    "misspelled option of training": ("train tiny.yaml --data data --train.stps 1", "did you mean 'train.steps'? "),
    "misspelled option": ("train tiny.yaml --dta data", "unknown option --dta; did you mean --data?"),
    "misspelled section": ("train tiny.yaml --data data --nekc fpn", "unknown option --nekc; did you mean --neck?"),
    "text for a number": (
        "train tiny.yaml --data data --train.steps many",
        "train.steps: expected integer, or null; got 'many'",
    ),
    "a fraction for a count": (
        "train tiny.yaml --data data --head.num_queries 2.5",
        "head.num_queries: expected integer; got '2.5'",
    ),
    "a number out of range": ("train tiny.yaml --data data --train.lr -1", "train.lr is greater than 0, not -1.0"),
    "not a number": ("train tiny.yaml --data data --train.lr nan", "train.lr is a finite number, not nan"),
    "a budget without a unit": ("train tiny.yaml --data data --train.budget 10", "s, m or h, like 45s, 10m or 2h"),
    "steps and a budget": (
        "train tiny.yaml --data data --train.steps 9 --train.budget 1m",
        "both say how long to train; give one",
    ),
    "an image size": (
        "train tiny.yaml --data data --image-size 100",
        "input: image_size must be a positive multiple of 32, not 100; nearest is 96",
    ),
    "no GPU": (
        "train tiny.yaml --data data --train.runtime.device cuda",
        "there is no device cuda: torch sees 0 CUDA devices",
    ),
    "no such device": (
        "train tiny.yaml --data data --train.runtime.device gpu",
        "device is auto, cpu or cuda, not 'gpu'",
    ),
    "nothing to resume": ("train tiny.yaml --data data --out run --resume", "run: no run to resume here (last.pt is "),
    "too small a budget": (
        "train tiny.yaml --data data --train.budget 0.1s",
        "train.budget is too small: ",
    ),
    "a folder instead of a file": (
        "train tiny.yaml --data data --out tiny.yaml",
        "tiny.yaml is a file; ",
    ),
    "a folder below a file": ("train tiny.yaml --data data --out tiny.yaml/run", "tiny.yaml is a file, not a folder"),
    "eval without anything": ("eval", "which data set? give --data DIR, or --annotations FILE and --images DIR"),
    "eval without a model": ("eval --data data", "what is measured? give MODEL, or --detections FILE"),
    "eval without data": ("eval {run}", "which data set? give --data DIR, or --annotations FILE and --images DIR"),
    "eval of nothing": (
        "eval nothing.pt --data data",
        "nothing.pt: no such file or folder; a model is the folder of a run",
    ),
    "eval of a folder without checkpoint": ("eval data --data data", "data: no weights in this folder"),
    "eval of an image": (
        "eval data/images/train_00000.jpg --data data",
        "train_00000.jpg: not a file of weights, or a damaged one; it is a JPEG image",
    ),
    "eval of an unknown split": ("eval {run} --data data --split tset", "no split 'tset' in data: "),
    "eval into a folder": ("eval {run} --data data --json data", "data is a folder; give the name of a file"),
    "eval into a file's folder": (
        "eval {run} --data data --json tiny.yaml/x.json",
        "tiny.yaml is a file, not a folder",
    ),
    "eval of nothing into a new folder": ("eval nothing.pt --data data --json new/x.json", "nothing.pt: no such file"),
    "eval on no GPU": ("eval {run} --data data --device cuda", "there is no device cuda: torch sees 0 CUDA devices"),
    "eval without a batch": ("eval {run} --data data --batch-size 0", "batch_size must be at least 1, got 0"),
    "eval, misspelled": ("eval {run} --data data --jsn x", "unknown option --jsn; did you mean --json?"),
    "predict without images": ("predict {run}", "the following arguments are required: PATH"),
    "predict sides without distributions": (
        "predict {run} data --sides-std",
        "the head of this detector predicts no distributions, as sides_std needs: dfine's does",
    ),
    "predict nothing": ("predict {run} nothing.jpg", "nothing.jpg: no such image or folder"),
    "predict an empty glob": ("predict {run} data/*.bmp", "data/*.bmp: no such image or folder"),
    "predict a folder without images": ("predict {run} data/annotations", "data/annotations: no images in this "),
    "predict over the images": (
        "predict {run} data/images --out data/images",
        "data/images/train_00000.jpg is one of the images, and drawing would overwrite it; give another --out",
    ),
    "predict into a file": (
        "predict {run} data/images --out tiny.yaml",
        "tiny.yaml is a file; give the name of a folder",
    ),
    "a threshold above 1": (
        "predict {run} data/images --threshold 2",
        "--threshold is between 0 and 1, or tuned, not 2.0",
    ),
    "a threshold that is none": (
        "predict {run} data/images --threshold nan",
        "threshold is between 0 and 1, or tuned, not nan",
    ),
    "a threshold in words": (
        "predict {run} data/images --threshold low",
        "--threshold: a number between 0 and 1, or tuned, not 'low'",
    ),
    "predict without a batch": ("predict {run} data/images --batch-size 0", "--batch-size is at least 1, not 0"),
    "predict on no GPU": ("predict {run} data/images --device cuda", "there is no device cuda"),
    "predict into a folder as JSON": ("predict {run} data/images --json data", "data is a folder; give the name of a "),
    "predict a text": (
        "predict {run} tiny.yaml",
        "1 of 1 images could not be read: tiny.yaml cannot be read as an image",
    ),
    "predict a text as JSON": ("predict {run} tiny.yaml --json x.json", "1 of 1 images could not be read"),
    "demo with another recipe": (
        "demo --out d --recipe rtdetr",
        "unknown recipe 'rtdetr'; did you mean 'rtdetr_x'? recipes: ",
    ),
    "demo without time": ("demo --out d --budget soon", "train.budget is a number and s, m or h"),
    "demo into a file": ("demo --out tiny.yaml", "tiny.yaml is a file; give the name of a folder"),
    "demo beside other data": ("demo --out .", "data is not empty and was not drawn by boxwright"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_make_no_sense(
    recipe_file: Path, data: Path, trained: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: 0)
    assert recipe_file.parent == data.parent
    (data / "drawn_set.json").unlink()
    command, message = COMMANDS[name]
    line = refused(command.format(run=trained).split())
    assert message in line


RECIPES: dict[str, tuple[str, str]] = {
    "not yaml": ("backbone: [", "tiny.yaml: not a YAML file: "),
    "a list": ("[1, 2]", "tiny.yaml: a recipe has sections (backbone, neck, head, input, augment, train)"),
    "nothing": ("", "tiny.yaml: a recipe has sections"),
    "a key twice": ("neck: fpn\nneck: identity\n", "'neck' appears twice"),
    "misspelled section": ("bakcbone: resnet_vd", "tiny.yaml: unknown section 'bakcbone'; did you mean 'backbone'? "),
    "no head": ("backbone: resnet_vd\nneck: identity", "tiny.yaml: section 'head' is missing"),
    "misspelled part": (
        "{backbone: resnet_dv, neck: identity, head: rtdetr}",
        "tiny.yaml: unknown backbone 'resnet_dv'; did you mean 'resnet_vd'? ",
    ),
    "misspelled option": (
        "{backbone: {name: resnet_vd, dept: 18}, neck: identity, head: rtdetr}",
        "resnet_vd option 'dept'; did you mean 'backbone.depth'? ",
    ),
    "wrong type": (
        "{backbone: resnet_vd, neck: identity, head: {name: rtdetr, decoder: {num_layers: [3]}}}",
        "tiny.yaml: head.decoder.num_layers: expected integer; got [3]",
    ),
    "wrong choice": (
        "{backbone: {name: resnet_vd, depth: 19}, neck: identity, head: rtdetr}",
        "tiny.yaml: backbone.depth: expected one of 18, 34, 50, 101; got 19",
    ),
    "an option that training refuses": (
        "{backbone: resnet_vd, neck: identity, head: rtdetr, train: {ema_decay: 2}}",
        "tiny.yaml: train.ema_decay is between 0 and 1, not 2.0",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_files_with_mistakes(recipe_file: Path, data: Path, refused: Refused, name: str) -> None:
    content, message = RECIPES[name]
    recipe_file.write_text(content)
    assert message in refused(["train", str(recipe_file), "--data", str(data)])


@pytest.mark.parametrize("content", ["last.pt", "best.safetensors", "notes.txt", "log.jsonl and best.safetensors"])
def test_a_folder_that_exists_is_not_overwritten(
    recipe_file: Path, data: Path, here: Path, refused: Refused, content: str
) -> None:
    (here / "run").mkdir()
    for name in content.split(" and "):
        (here / "run" / name).write_text("precious")
    line = refused(["train", str(recipe_file), "--data", str(data), "--out", "run"])
    assert line == "run exists already and is not overwritten: give another --out, or --resume to go on with it"


def test_data_with_other_classes(trained: Path, data: Path, refused: Refused) -> None:
    def rename(document: Any) -> None:
        document["categories"][0]["name"] = "hexagon"

    edit(data, rename, "val")
    line = refused(["eval", str(trained), "--data", str(data)])
    assert "1 of its categories with annotations are unknown to the model: 'hexagon'; the model knows 6: " in line


def test_a_broken_image_among_good_ones(trained: Path, data: Path, here: Path, capsys: Capture) -> None:
    """The good ones are not lost; the status says that not all went well."""
    cut(0.02)(data)
    (here / "mixed").mkdir()
    for number in (3, 4, 5):
        shutil.move(data / "images" / f"train_{number:05}.jpg", here / "mixed")
    assert main(["predict", str(trained), "mixed", "--json", "detections.json", "--threshold", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("240 objects in 2 images, drawn in predictions, as JSON in detections.json")
    assert captured.err.startswith("boxwright: error: 1 of 3 images could not be read: mixed/train_00004.jpg cannot ")
    assert {row["file_name"] for row in json.loads(Path("detections.json").read_text())} == {
        "train_00003.jpg",
        "train_00005.jpg",
    }
    assert sorted(path.name for path in Path("predictions").iterdir()) == ["train_00003.jpg", "train_00005.jpg"]


def test_two_images_of_one_name(trained: Path, data: Path, here: Path, refused: Refused) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        shutil.copy(data / "images" / "val_00000.jpg", here / folder / "same.jpg")
    line = refused(["predict", str(trained), "*/same.jpg"])
    assert line.startswith("a/same.jpg and b/same.jpg would both be drawn to predictions/same.jpg; ")


@pytest.mark.parametrize("command", ["train nothing.yaml --data data", "eval nothing.pt --data data"])
def test_as_a_program(command: str, here: Path) -> None:
    (here / "data").mkdir()
    done = subprocess.run([sys.executable, "-m", "boxwright", *command.split()], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("boxwright: error: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["data"]
