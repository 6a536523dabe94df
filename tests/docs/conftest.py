"""The folder that the reader of a page is in."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
import yaml
from pages import small_recipe
from safetensors.torch import save_file

import boxwright
from boxwright.compose.recipes import list_recipes
from boxwright.data.open import open_data
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.weights.labels import coco_categories
from drawn_videos import write_video
from stand_in_export import write_stand_in


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny drawn set in a folder that is called as the pages call it."""
    folder = tmp_path_factory.mktemp("drawn") / "DIR"
    draw_data_set(folder, train=4, val=3, image_size=64)
    return folder


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the Hugging Face hub with a small model under the name of the released one that the pages name."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    recipe = yaml.safe_load(small_recipe("rtdetr_r50"))
    detector = boxwright.build(recipe, categories=coco_categories(), overrides={"neck.num_blocks": 3})
    detector.save(folder / "small.safetensors")
    snapshot = folder / "models--PekingU--rtdetr_r50vd" / "snapshots" / "main"
    boxwright.convert(folder / "small.safetensors", snapshot, to="hf_rtdetr")
    return folder


@pytest.fixture
def folder(tmp_path: Path, data_set: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder: a data set, images, an exported file, and small recipes under the names of the real ones."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    # Processes that measure speed take seconds to start; pages that measure it by itself do so.
    monkeypatch.setattr("boxwright.workflows.certified_export._measure_speed", lambda *_: [])
    shutil.copytree(data_set, tmp_path / "DIR")
    images = sorted((data_set / "images").glob("val_*.jpg"))
    (tmp_path / "photos").mkdir()
    for name, image in zip(("photo.jpg", "photos/a.jpg", "photos/b.jpg"), images, strict=True):
        shutil.copy(image, tmp_path / name)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "teacher.safetensors")
    if find_spec("av"):
        write_video(tmp_path / "street.mp4", [i / 10 for i in range(12)], size=(64, 48))
    write_stand_in(tmp_path / "model.onnx", categories=open_data(data_set, "val").categories)
    for name in list_recipes():
        (tmp_path / f"{name}.yaml").write_text(small_recipe(name))
    return tmp_path
