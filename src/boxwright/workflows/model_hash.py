"""A hash of all that a model's predictions depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import torch

from boxwright.detector import Detector
from boxwright.exporting.certificate import hash_exported
from boxwright_runtime import Runtime


def hash_model(predictor: Detector | Runtime) -> str:
    """Compute the SHA-256 of an exported file; or of weights, classes, preprocessing and recipe of a detector.

    From whatever file a detector was loaded, its hash is the same.
    """
    if isinstance(predictor, Runtime):
        return hash_exported(predictor.path)
    digest = hashlib.sha256()
    recipe = None if predictor.recipe is None else predictor.recipe.to_dict()
    tuning = None if predictor.tuning is None else predictor.tuning.thresholds
    facts = [[asdict(one) for one in predictor.categories], asdict(predictor.input_format), recipe, tuning]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(predictor.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
