"""Networks of timm by the name of a file, or of torchvision's release: the same tensors by the same names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import timm
import torch

from boxwright.weights.projects.torchvision import release_of
from boxwright.weights.source import SourceFiles

_SHARE = 0.7
"""Of the names of a file and of a network, those that are the other's too: classifiers are called otherwise."""


def name_network(files: SourceFiles) -> str | None:
    """Find the network of timm whose tensors a file has, by its name or as a release of torchvision; None for others.

    What is not exactly so is said when the file is read.
    """
    release = release_of(files)
    network = find_network(files.origin.source) if release is None else release.builder
    if network is None or not timm.is_model(network):
        return None
    names, theirs = _names_of(network), set(files.tensors)
    common = len(names & theirs)
    return network if common >= _SHARE * max(len(names), len(theirs)) else None


def find_network(source: str) -> str | None:
    """Find the model of timm that a file is called by: the longest name that it begins with."""
    name = Path(source).name.lower()
    names = [model for model in timm.list_models() if name.startswith(model)]
    longest = max(names, key=len, default=None)
    # resnet50d.pth is no resnet50.
    return longest if longest is not None and not name[len(longest) :][:1].isalnum() else None


@cache
def _names_of(network: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(timm.create_model(network, pretrained=False).state_dict())
