"""The folder that the reader of a page is in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pages import small_recipe

from boxwright.compose.recipes import list_recipes
from boxwright.data.synthetic.shapes import draw_data_set


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny drawn set in a folder that is called as the pages call it."""
    folder = tmp_path_factory.mktemp("drawn") / "DIR"
    draw_data_set(folder, train=4, val=3, image_size=64)
    return folder


@pytest.fixture
def folder(tmp_path: Path, data_set: Path) -> Path:
    """The reader's folder: with a data set, images, and small recipes under the names of the real ones."""
    shutil.copytree(data_set, tmp_path / "DIR")
    images = sorted((data_set / "images").glob("val_*.jpg"))
    (tmp_path / "photos").mkdir()
    for name, image in zip(("photo.jpg", "photos/a.jpg", "photos/b.jpg"), images, strict=True):
        shutil.copy(image, tmp_path / name)
    for name in list_recipes():
        (tmp_path / f"{name}.yaml").write_text(small_recipe(name))
    return tmp_path
