"""Passports: what training writes, what fine-tuning carries on, and what becomes of it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

import boxwright
from boxwright.checkpoints import LAST, passport_of, read_checkpoint
from boxwright.data.content_hash import content_sha256, images_sha256, order_sha256
from boxwright.data.open import open_data
from boxwright.hub_upload import upload_folder
from boxwright.model_card import describe_passport, find_license, write_card_text
from boxwright.passport import Origin, Passport, TrainingData
from boxwright.training.log import read_log
from boxwright.version import __version__
from boxwright.workflows.passports import check_same_data, describe_data
from heard import Heard

HUB = Passport(
    version="0.2.0",
    recipe="rtdetr_r50",
    origin=Origin(source="hf:A/B", kind="hf_rtdetr", revision="abc", sha256="0" * 64, license="apache-2.0"),
)
TUNED = Passport(
    version="0.2.0",
    recipe="rtdetr_r50",
    data=TrainingData(name="my: boats", num_images=12, sha256="1" * 64),
    metrics={"AP": 0.51234, "AP50": 0.75},
    parent=HUB,
)


def stored(path: Path) -> Passport:
    passport = passport_of(read_checkpoint(path))
    assert passport is not None
    return passport


def test_training_writes_it(trained: Path, drawn: Path) -> None:
    best, last = stored(trained / "best.safetensors"), stored(trained / LAST)
    digest = hashlib.sha256((drawn / "annotations" / "train.json").read_bytes()).hexdigest()
    read = open_data(drawn)
    data = TrainingData(
        name=drawn.name,
        num_images=10,
        sha256=digest,
        content_sha256=content_sha256(read),
        images_sha256=images_sha256(read),
        order_sha256=order_sha256(read),
    )
    assert best.data == last.data == data
    assert (best.version, best.recipe, best.origin, best.parent) == (__version__, "tiny", None, None)
    evaluations = [entry for entry in read_log(trained) if "AP" in entry]
    assert evaluations, "nothing was measured"
    assert best.metrics["AP"] == pytest.approx(max(entry["AP"] for entry in evaluations))
    assert last.metrics["AP"] == pytest.approx(evaluations[-1]["AP"])
    detector = boxwright.load(trained)
    assert detector.passport == best


def test_fine_tuning_carries_it_on(trained: Path, drawn: Path, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    boxwright.train(tiny_recipe, drawn, weights=trained, out=tmp_path / "run", overrides={"train.steps": 2})
    tuned = stored(tmp_path / "run" / "best.safetensors")
    parent = stored(trained / "best.safetensors")
    digest = hashlib.sha256((trained / "best.safetensors").read_bytes()).hexdigest()
    origin = Origin(source=str(trained / "best.safetensors"), kind="boxwright", sha256=digest)
    assert tuned.parent == replace(parent, origin=origin)
    assert tuned.data is not None
    # Resuming does not forget it.
    boxwright.train(tiny_recipe, drawn, out=tmp_path / "run", resume=True, overrides={"train.steps": 2})
    assert stored(tmp_path / "run" / LAST).parent == tuned.parent
    facts = boxwright.info(tmp_path / "run").model
    assert facts is not None
    assert facts.passport.parent == tuned.parent


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_other_annotations_are_noticed_in_every_format(drawn: Path, tmp_path: Path, name: str) -> None:
    """Those of folders of annotation files too, which have no one hash; the same data in another format is the same."""
    folder = boxwright.convert_data(drawn, tmp_path / "set", to=name, observer=Heard()).folder
    passport = Passport(version="1", data=describe_data(open_data(folder), folder))
    check_same_data(passport, describe_data(open_data(drawn), drawn), tmp_path)
    data = open_data(folder)
    first = data.records[0]
    changed = replace(data, records=(replace(first, bbox_xywh=first.bbox_xywh + 1), *data.records[1:]))
    described = replace(describe_data(changed, folder), sha256=None if data.source.is_dir() else "0" * 64)
    with pytest.raises(ValueError, match="the annotations of set are others; to go on with other data"):
        check_same_data(passport, described, tmp_path)
    assert passport.data is not None
    # Of earlier versions: nothing is known of folders.
    old = replace(passport, data=replace(passport.data, content_sha256=None))
    check_same_data(old, describe_data(data, folder), tmp_path)


def test_the_backbone_of_another_run_is_named(
    trained: Path, drawn: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    boxwright.train(tiny_recipe, drawn, backbone_weights=trained, out=tmp_path / "run", overrides={"train.steps": 1})
    passport = stored(tmp_path / "run" / "best.safetensors")
    assert passport.parent is None
    assert passport.backbone is not None
    assert passport.backbone.origin is not None
    assert passport.backbone.origin.source == str(trained / "best.safetensors")
    assert len(passport.backbone.origin.sha256 or "") == 64
    assert passport.backbone.data == stored(trained / "best.safetensors").data
    lines = describe_passport(passport)
    assert "  - begun with the backbone of:" in lines
    assert find_license(replace(passport, backbone=HUB)) == "apache-2.0"


def test_saving_writes_it(trained: Path, tmp_path: Path) -> None:
    detector = boxwright.load(trained)
    for name in ("x.safetensors", "x.pt"):
        detector.save(tmp_path / name)
        assert stored(tmp_path / name) == stored(trained / "best.safetensors")
    fresh = boxwright.build("resnet18_classifier", num_classes=2, overrides={"image_size": 64})
    assert fresh.passport == Passport(version=__version__, recipe="resnet18_classifier")
    fresh.passport = None
    fresh.save(tmp_path / "fresh.safetensors")
    assert stored(tmp_path / "fresh.safetensors") == Passport(version=__version__)


def test_plain_values_and_back() -> None:
    assert Passport.from_dict(TUNED.to_dict()) == TUNED
    later = {**TUNED.to_dict(), "color": "blue", "data": {**TUNED.to_dict()["data"], "width": 3}}
    assert Passport.from_dict(later) == TUNED
    for wrong in ({}, {"version": "1", "origin": 3}, {"version": "1", "parent": {"recipe": "x"}}):
        with pytest.raises(ValueError, match="a passport"):
            Passport.from_dict(wrong)


def test_a_card_says_what_the_passport_says() -> None:
    recipe = {
        "backbone": {"name": "resnet_vd"},
        "neck": [{"name": "hybrid_encoder"}],
        "head": {"name": "rtdetr"},
        "input": {"image_size": 64, "odd": "a|b"},
    }
    categories = [boxwright.Category(i, f"class {i}") for i in range(23)]
    text = write_card_text(TUNED, categories, recipe, title="boats", usage="x = 1", images=["a.png"])
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "apache-2.0",
        "library_name": "boxwright",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "boxwright", "rtdetr", "resnet_vd"],
        "datasets": ["my: boats"],
        "metrics": ["AP", "AP50"],
    }
    assert "| AP | 0.5123 |\n| AP50 | 0.7500 |" in body
    assert "class 19 and 3 more." in body
    assert "| odd | a\\|b |" in body
    assert "![a.png](a.png)" in body
    lines = describe_passport(TUNED)
    assert lines[0] == "- rtdetr_r50, trained with Boxwright 0.2.0"
    assert "    - rtdetr_r50, read by Boxwright 0.2.0" in lines
    assert "      - source: hf:A/B (hf_rtdetr), revision abc" in lines
    assert all(line in body for line in lines)
    assert find_license(Passport(version="1")) is None


@pytest.mark.parametrize(
    ("license", "front"),
    [
        ("MIT", {"license": "mit"}),
        ("openrail++", {"license": "openrail++"}),
        ("other", {"license": "other"}),
        ("1.0", {"license": "other", "license_name": "1.0"}),
        ("dinov3-license", {"license": "other", "license_name": "dinov3-license"}),
        ("BSD-3-Clause (torchvision); terms: apply", {"license_name": "bsd-3-clause-torchvision-terms-apply"}),
        ("自由", {"license": "other", "license_name": "unnamed"}),
    ],
)
def test_the_hub_takes_every_license(license: str, front: dict[str, str]) -> None:
    """It refuses a card whose license is none of its identifiers."""
    passport = Passport(version="1", origin=Origin(source="x", kind="detr", license=license))
    recipe: dict[str, Any] = {"backbone": {"name": "a"}, "neck": [], "head": {"name": "b"}, "input": {}}
    text = write_card_text(passport, [], recipe, title="x", usage="x = 1")
    content = yaml.safe_load(text.split("---\n")[1])
    assert {key: value for key, value in content.items() if key.startswith("license")} == {"license": "other", **front}
    assert f"license, as the source states it: {license}" in text


class StubClient:
    """Writes down what would be uploaded."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, token: str | None = None) -> None:
        self.calls.append(("token", token))

    def create_repo(self, repository: str, **options: Any) -> None:
        self.calls.append(("create", (repository, options)))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> str:
        folder = Path(folder_path)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.calls.append(("upload", (repo_id, files, commit_message)))
        return f"https://huggingface.co/{repo_id}"


def test_an_upload_to_the_hub(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", StubClient)
    monkeypatch.setattr(StubClient, "calls", [])
    address = boxwright.load(trained).push_to_hub("me/boats", private=True, token="secret")
    assert address == "https://huggingface.co/me/boats"
    (_, token), (_, created), (_, (repository, files, _)) = StubClient.calls
    assert (token, created) == ("secret", ("me/boats", {"private": True, "exist_ok": True}))
    assert repository == "me/boats"
    assert set(files) == {"model.safetensors", "README.md"}
    assert b'boxwright.load("hf:me/boats")' in files["README.md"]
    assert b"secret" not in b"".join(files.values())
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    assert boxwright.load(tmp_path).passport == boxwright.load(trained).passport
    boxwright.load(trained).push_to_hub("me/boats", folder=tmp_path)
    assert set(StubClient.calls[-1][1][1]) == {"model.safetensors"}
    for name in ("boats", "/boats", "a/b/c"):
        with pytest.raises(ValueError, match="is OWNER/NAME, not"):
            upload_folder(tmp_path, name)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        upload_folder(tmp_path / "none", "me/boats")


def test_an_upload_shows_images(trained: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", StubClient)
    monkeypatch.setattr(StubClient, "calls", [])
    image = next((drawn / "images").glob("val*"))
    boxwright.load(trained).push_to_hub("me/boats", images=[image, np.zeros((40, 60, 3), np.uint8)])
    _, files, _ = StubClient.calls[-1][1]
    assert set(files) == {"model.safetensors", "README.md", "images/image_0.png", "images/image_1.png"}
    assert b"![images/image_1.png](images/image_1.png)" in files["README.md"]
    assert Image.open(io.BytesIO(files["images/image_1.png"])).width >= 60
    classifier = boxwright.build("resnet18_classifier", num_classes=2, overrides={"input.image_size": 64})
    classifier.push_to_hub("me/boats", images=image)
    assert "images/image_0.png" in StubClient.calls[-1][1][1]
    with pytest.raises(FileNotFoundError):
        classifier.push_to_hub("me/boats", images="none.png")
    with pytest.raises(ValueError, match="images are for a new card, and a folder has its own"):
        classifier.push_to_hub("me/boats", images=image, folder=drawn)


def test_an_upload_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"^me/boats: could not be uploaded to the hub \(.*\S\)$"):
        upload_folder(tmp_path, "me/boats", token="hf_secret")
