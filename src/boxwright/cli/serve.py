"""``boxwright serve``: a model behind an address, with a page to try it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import (
    MODEL_OR_FILE_HELP,
    OVERRIDES_HELP,
    CommandParser,
    add_trust_argument,
    read_threshold,
)
from boxwright.cli.compute_arguments import add_device_arguments
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show
from boxwright.serving.options import ServingOptions
from boxwright.workflows.observer import Observer

if TYPE_CHECKING:
    from boxwright.devices import ComputeOptions

KEY_VARIABLE = "BOXWRIGHT_KEY"


class _Announcer(Observer):
    """Prints notes and the address, without what a bar of progress needs."""

    def note(self, line: str) -> None:
        show(f"note: {line}", error=True)

    def announce(self, line: str) -> None:
        show(line, error=True)


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options, overrides = _parse(argv)
    # After it was parsed: NumPy takes as long as all of that.
    from boxwright.serving.serve import serve

    serve(
        options.model,
        host=options.host,
        port=options.port,
        workers=options.workers,
        options=_read_options(options),
        device=_read_device(options),
        trusted=options.trust,
        observer=_Announcer(),
        overrides=overrides,
    )
    return 0


def _read_options(options: argparse.Namespace) -> ServingOptions:
    key = options.key if options.key is not None else os.environ.get(KEY_VARIABLE)
    return ServingOptions(
        threshold=options.threshold,
        key=key,
        max_bytes=options.max_bytes,
        max_pixels=options.max_pixels,
        queue=options.queue,
        deadline=options.deadline,
        batch_size=options.batch_size,
        batch_wait=options.batch_wait,
    )


def _read_device(options: argparse.Namespace) -> str | ComputeOptions:
    if options.precision == "auto":
        return str(options.device)
    from boxwright.devices import ComputeOptions

    return ComputeOptions(options.device, options.precision)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read what was typed, with changes of the model's recipe."""
    parser = CommandParser(
        "serve",
        description="Serve a model over HTTP: POST images to /predict, or open the page.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_OR_FILE_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="any free one for 0 (default: 8000)")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes, with one model in common (default: 1)"
    )
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=read_threshold,
        default=ServingOptions.threshold,
        help=f"where a request has none; or tuned (default: {ServingOptions.threshold})",
    )
    parser.add_argument(
        "--key", help=f"that clients send as Authorization: Bearer KEY; better {KEY_VARIABLE} in the environment"
    )
    _add_bounds(parser)
    add_device_arguments(parser)
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    return parser.parse(own), overrides


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    """Add the bounds of ``ServingOptions``, with its defaults."""
    for name, kind, meaning in (
        ("max-bytes", int, "of the body of one request"),
        ("max-pixels", int, "of one image, by its header"),
        ("queue", int, "images that are taken at a time in each process; more are refused"),
        ("deadline", float, "seconds until a request is answered"),
        ("batch-size", int, "images that go through the model together, at most"),
        ("batch-wait", float, "milliseconds that an image waits for others which are being decoded"),
    ):
        default = getattr(ServingOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", metavar="N", type=kind, default=default, help=f"{meaning} (default: {default:,})"
        )
