"""Other projects that Boxwright is compared with: repositories at a commit, and packages."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

AUTHORS = "authors' code"
PEERS = (AUTHORS, "transformers", "torchvision", "mmdetection", "effdet")
"""Kinds of projects that every system is looked up in; a package that is none of them is a kind of its own."""


@dataclass(frozen=True)
class Original:
    """A repository at the commit, or the release, of which the numbers are stored.

    Args:
        repository: ``owner/name`` at GitHub.
        commit: its first digits, or the tag of a release.
        peer: kind of project, one of ``PEERS`` or a name of its own.
    """

    repository: str
    commit: str
    peer: str = AUTHORS

    @property
    def title(self) -> str:
        """Repository and commit, as pages name it."""
        return f"{self.repository} {self.commit}"


ORIGINALS = {
    "detr": Original("facebookresearch/detr", "29901c5"),
    "deformable_detr": Original("fundamentalvision/Deformable-DETR", "11169a6"),
    "rtdetr": Original("lyuwenyu/RT-DETR", "068dfde"),
    "rtdetrv4": Original("RT-DETRs/RT-DETRv4", "df44122"),
    "dfine": Original("Peterande/D-FINE", "4a1f73a"),
    "deim": Original("ShihuaHuang95/DEIM", "a9aa4ad"),
    "deimv2": Original("Intellindust-AI-Lab/DEIMv2", "0fff8d4"),
    "edgecrafter": Original("Intellindust-AI-Lab/EdgeCrafter", "706d037"),
    "dino": Original("IDEA-Research/DINO", "faa8520"),
    "rfdetr": Original("roboflow/rf-detr", "35ac6ab"),
    "co_detr": Original("Sense-X/Co-DETR", "2665352"),
    "mmdet_in_co_detr": Original("Sense-X/Co-DETR", "2665352", "mmdetection"),
    "panet": Original("ShuLiu1993/PANet", "f055f71"),
    "augfpn": Original("Gus-Guo/AugFPN", "ffc7e5e"),
    "detectron2": Original("facebookresearch/detectron2", "02b5c4e"),
    "mmdet": Original("open-mmlab/mmdetection", "3.3.0", "mmdetection"),
    "mmcv": Original("open-mmlab/mmcv", "a8073c7", "mmdetection"),
    "bottleneck_transformer": Original("lucidrains/bottleneck-transformer-pytorch", "0.1.4"),
}
"""Repositories whose numbers are stored in ``tests``; packages that are installed need no entry."""


def name_project(name: str) -> tuple[str, str]:
    """Look up the kind of a project, and its title with commit or version.

    Args:
        name: in ``ORIGINALS``, or an installed package.
    """
    if name in ORIGINALS:
        return ORIGINALS[name].peer, ORIGINALS[name].title
    return name, f"{name} {version(name)}"


def require_original(folder: Path | None, name: str) -> Path:
    """Return the folder of a repository below that of ``--originals``; skip the test where there is none.

    Raises:
        ValueError: it is no clone, or at another commit than the one of the stored numbers.
    """
    original = ORIGINALS[name]
    if folder is None:
        pytest.skip(f"needs --originals DIR with {original.title}")
    path = folder / original.repository.partition("/")[2]
    if not path.is_dir():
        pytest.skip(f"needs {path}: git clone https://github.com/{original.repository}, then git checkout")
    head = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        raise ValueError(f"{path} is no clone: git clone https://github.com/{original.repository} there")
    if not head.stdout.startswith(original.commit):
        raise ValueError(f"{path} is at {head.stdout[:7]}, but numbers are of {original.commit}: git checkout it")
    return path
