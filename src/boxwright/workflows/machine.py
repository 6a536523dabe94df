"""The machine that something was measured on."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from boxwright.control_groups import read_system_file
from boxwright.cpu_quota import count_allowed_cores
from boxwright.version import __version__

LIBRARIES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy", "Pillow")
"""Libraries whose versions a measurement depends on."""


def describe_machine() -> dict[str, Any]:
    """Return the processor, the cores that may be used, and versions of Python and of the libraries that there are."""
    return {"processor": _processor(), "cores": count_allowed_cores(), "versions": list_versions()}


def list_versions() -> dict[str, str]:
    """Return the versions of Boxwright, of Python, and of the libraries that there are."""
    versions = {"boxwright": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    for line in read_system_file(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
