"""Released files and their golden values: found in the caches of their projects, or the test is skipped.

Nothing is downloaded. A test that is skipped says which command brings its file, which is outside of this project and
under a license of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from PIL import Image

IMAGE = "000000039769.jpg"
"""The image of COCO val2017 that all golden values are of: two cats and two remotes on a couch."""


def find_hub_folder(repository: str, *needed: str) -> Path:
    """Find a repository of the Hugging Face hub in its cache; skip the test where it is not.

    Args:
        repository: ``OWNER/NAME``.
        needed: files that the test needs.
    """
    needed = needed or ("config.json", "preprocessor_config.json", "model.safetensors")
    paths = [try_to_load_from_cache(repository, name) for name in needed]
    if not all(isinstance(path, str) for path in paths):
        pytest.skip(f"{repository} is not in the cache: `hf download {repository} {' '.join(needed)}`")
    return Path(str(paths[0])).parent


def find_file(url: str) -> Path:
    """Find a file of weights in torch hub's cache; skip the test where it is not."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: `curl -L --create-dirs -o {path} {url}`")
    return path


def find_file_of_page(name: str, page: str) -> Path:
    """Find a file in torch hub's cache that its project links from a page; skip the test where it is not."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        pytest.skip(f"{name} is not there: save it from {page} as {path}")
    return path


def read_image(name: str = IMAGE) -> NDArray[np.uint8]:
    """Read an image of COCO val2017, (h, w, 3); skip the test where it is not beside torch hub's files."""
    path = Path(torch.hub.get_dir()) / "coco_val2017" / name
    if not path.is_file():
        url = f"http://images.cocodataset.org/val2017/{name}"
        pytest.skip(f"{name} is not there: `curl -L --create-dirs -o {path} {url}`")
    return np.asarray(Image.open(path).convert("RGB"))
