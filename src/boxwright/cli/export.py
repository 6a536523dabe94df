"""``boxwright export``: a model to one file for another runtime, run there before it is called finished."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import MODEL_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show

if TYPE_CHECKING:
    from boxwright.exporting.export_file import ExportedDetector

_INPUTS = {
    "bytes": "bytes of RGB images of any size",
    "float": "network inputs and the sizes of their images",
}


def run(argv: Sequence[str]) -> int:
    """Export, and say what the file was run on; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.export import export

    exported = export(
        options.model,
        to=options.to,
        out=options.out,
        input=options.input,
        ops=options.ops,
        overwrite=options.overwrite,
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    show("\n".join(describe_export(exported)))
    return 0


def describe_export(exported: ExportedDetector) -> list[str]:
    """Say in lines what was written and what it was run on."""
    metadata = exported.metadata
    lines = [
        f"{exported.path} ({exported.size / 1e6:.1f} MB) takes {_INPUTS[metadata.profile]}, in {metadata.precision}"
    ]
    if exported.report.agreement.total:
        lines.append(exported.report.describe())
    return lines


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read what was typed: the options of the command, and changes of the model's recipe."""
    parser = CommandParser(
        "export",
        description="Write a model as one file that needs no torch: images in, boxes in their pixels out. It is run in "
        "its own runtime, at\nevery size that it claims, and compared with the model before it is called finished.\n"
        + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--to", choices=("onnx", "openvino"), help="kind of the file (default: by the name of --out, else onnx)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help=".onnx, or .xml for OpenVINO (default: like the model, in this folder)"
    )
    parser.add_argument(
        "--input",
        choices=tuple(_INPUTS),
        default="bytes",
        help="bytes of images, or float: network inputs that are made outside (default: bytes)",
    )
    parser.add_argument(
        "--ops",
        choices=("auto", "plain"),
        default="auto",
        help="plain: without GridSample, which some runtimes do not have (default: auto)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what stands there")
    add_trust_argument(parser)
    own, overrides = take_overrides(argv, except_for=("--input",))
    return parser.parse(own), overrides
