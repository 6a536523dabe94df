"""``boxwright export``: a model to one file for another runtime, run there before it is called finished."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import MODEL_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.data_arguments import add_format_argument
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show

if TYPE_CHECKING:
    from boxwright.exporting.export_file import ExportedDetector
    from boxwright.workflows.verification import Verification

_INPUTS = {
    "bytes": "bytes of RGB images of any size",
    "float": "network inputs and the sizes of their images",
}


def run(argv: Sequence[str]) -> int:
    """Export, and say what the file was run on; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.certificate_table import certificate_tables
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.workflows.certified_export import RejectedFileError
    from boxwright.workflows.export import export

    try:
        exported = export(
            options.model,
            to=options.to,
            out=options.out,
            input=options.input,
            ops=options.ops,
            precision=options.precision,
            verify=_read_verification(options),
            calibrate=options.calibrate,
            overwrite=options.overwrite,
            trusted=options.trust,
            observer=ConsoleObserver(),
            overrides=overrides,
        )
    except RejectedFileError as error:
        TerminalConsole().print(certificate_tables(error.certificate))
        raise
    show("\n".join(describe_export(exported)))
    if exported.certificate is not None:
        TerminalConsole().print(certificate_tables(exported.certificate))
    return 0


def _read_verification(options: argparse.Namespace) -> Verification | None:
    from boxwright.workflows.reading import DataFiles
    from boxwright.workflows.verification import Verification

    if options.verify is None:
        return None
    data = DataFiles(folder=options.verify, data_format=options.data_format)
    return Verification(data=data, split=options.split, tolerance=options.tolerance)


def describe_export(exported: ExportedDetector) -> list[str]:
    """Say in lines what was written and what it was run on."""
    metadata = exported.metadata
    lines = [
        f"{exported.path} ({exported.size / 1e6:.1f} MB) takes {_INPUTS[metadata.profile]}, in {metadata.precision}"
    ]
    if exported.report.agreement.total:
        before = "" if metadata.precision == "fp32" else "in fp32, before it was converted, it "
        lines.append(before + exported.report.describe())
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
    _add_precision_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what stands there")
    add_trust_argument(parser)
    own, overrides = take_overrides(argv, except_for=("--input",))
    options = parser.parse(own)
    if options.verify is None:
        for name in ("tolerance", "data_format"):
            if getattr(options, name) is not None:
                parser.error(f"--{name.replace('_', '-')} is for --verify DATA")
    return options, overrides


def _add_precision_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        default="fp32",
        help="that the file computes in; bf16 is for OpenVINO (default: fp32)",
    )
    parser.add_argument(
        "--verify", metavar="DATA", help="measure the file on a data set beside the model, and write a certificate"
    )
    parser.add_argument("--split", default="val", help="split of it (default: val)")
    add_format_argument(parser)
    parser.add_argument(
        "--tolerance",
        metavar="POINTS",
        type=float,
        help="of AP, of 100, that the file may lose (default: 0.1 in fp32, else 0.5)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help="data set whose split train has images like those to come, for int8 (default: that of --verify)",
    )
