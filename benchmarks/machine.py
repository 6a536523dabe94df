"""The kind of machine that numbers were measured on."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from boxwright.cpu_quota import count_allowed_cores

INSTRUCTIONS = {"amx_tile": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Names of what matters to matrix products, by the flags of /proc/cpuinfo, best first."""

PACKAGES = ("boxwright", "torch", "torchvision", "transformers", "onnxruntime", "openvino")


def describe_machine(device: str) -> dict[str, Any]:
    """Name the processor with its instructions, cores, and the GPU where one is measured."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    fields = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", text.partition("\n\n")[0], re.MULTILINE))
    flags = fields.get("flags", "").split()
    instructions = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    processor = " ".join(fields.get("model name", platform.processor() or platform.machine()).split())
    if {"cpu family", "model"} <= fields.keys():
        processor += f" (family {fields['cpu family']}, model {fields['model']})"
    gpu = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else None
    return {
        "name": gpu or ", ".join([processor, *instructions[:1], _cores()]),
        "processor": processor,
        "instructions": instructions,
        "cores": _cores(),
        "gpu": gpu,
    }


def _cores() -> str:
    cores = count_allowed_cores()
    return f"{cores:g} core{'s' if cores != 1 else ''}"


def file_name(machine: dict[str, Any]) -> str:
    """Make the name of the file of a kind of machine."""
    return re.sub(r"[^a-z0-9]+", "-", machine["name"].lower()).strip("-") + ".json"


def list_versions() -> dict[str, str]:
    """List the versions of what is measured."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
