"""Options of commands that say where and how precisely a network predicts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright.devices import ComputeOptions


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ComputeOptions``."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of a model's network; auto takes bfloat16 where the device multiplies it natively (default: auto)",
    )


def read_compute(options: argparse.Namespace, *, sides_std: bool = False) -> ComputeOptions:
    """Return the device and the precision that were typed, and whether sides were asked for."""
    from boxwright.devices import ComputeOptions

    return ComputeOptions(options.device, options.precision, sides_std)
