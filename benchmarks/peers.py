"""Models of transformers with the weights of ours, as the tests of parity make them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

from transformers_deformable_detr import transformers_deformable_detr as transformers_deformable_detr
from transformers_rtdetr import transformers_rtdetr as transformers_rtdetr
