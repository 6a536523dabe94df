"""Packages that only export needs, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_onnx() -> Any:
    """Import onnx, with the helpers that are used.

    Raises:
        ValueError: it is not installed.
    """
    for name in ("onnx.helper", "onnx.numpy_helper"):
        import_extra(name, "export")
    return import_extra("onnx", "export")


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        ValueError: it is not installed.
    """
    return import_extra("onnxruntime", "export")


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        ValueError: it is not installed.
    """
    return import_extra("openvino", "openvino")


def import_extra(name: str, extra: str) -> Any:
    """Import a module that an extra of Boxwright brings.

    Args:
        name: of the module.
        extra: its name in ``pip install 'boxwright[extra]'``.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise ValueError(f"{name.partition('.')[0]} is not installed: pip install 'boxwright[{extra}]'") from error
