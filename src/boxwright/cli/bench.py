"""``boxwright bench``: latency, throughput and memory of models and exported files, side by side."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxwright.cli.arguments import CommandParser, add_trust_argument, import_trusted
from boxwright.cli.terminal import is_piped, json_target, write_json
from boxwright.files import check_target
from boxwright_runtime.printable_names import printable_text

if TYPE_CHECKING:
    from rich.console import Console

    from boxwright.reports.latency_chart import LatencyPoint
    from boxwright.workflows.bench import BenchResult, BenchRow


def run(argv: Sequence[str]) -> int:
    """Measure, print a table, write JSON and a chart; return the exit status."""
    options = _parse(argv)
    import_trusted(options.trust)
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.exporting.certificate import find_certificate
    from boxwright.reports.latency_chart import check_chart_target, plot_latency
    from boxwright.workflows.bench import bench

    target, chart = json_target(options.json), Path(options.plot) if options.plot else None
    if chart is not None:
        check_chart_target(chart)
        if not any(find_certificate(model).is_file() for model in options.models):
            raise ValueError("--plot: none has a certificate, and so an AP; export a file with --verify DATA")
    observer = ConsoleObserver()
    result = bench(
        options.models,
        batch_sizes=options.batch_size,
        image_sizes=options.image_size,
        image_shapes=options.image_shape,
        threads=options.threads,
        precisions=options.precision,
        runtimes=options.runtime,
        input=options.input,
        rounds=options.rounds,
        device=options.device,
        trusted=options.trust,
        observer=observer,
    )
    console = observer.console if is_piped(target) else TerminalConsole()
    _print(result, console)
    write_json(target, result.to_json())
    if chart is not None:
        plot_latency(list_points(result), chart)
    return 0


def list_points(result: BenchResult) -> list[LatencyPoint]:
    """List the rows that have an AP as points of a chart, with the settings in their names that differ."""
    from boxwright.reports.latency_chart import LatencyPoint

    certified = [row for row in result.rows if row.ap is not None]
    varied, _ = _split_settings(certified)
    names = [", ".join([Path(row.candidate.title).name, *own]) for row, own in zip(certified, varied, strict=True)]
    return [
        LatencyPoint(name, row.median * 1e3, row.ap)
        for name, row in zip(names, certified, strict=True)
        if row.ap is not None
    ]


def _split_settings(rows: Sequence[BenchRow]) -> tuple[list[list[str]], list[str]]:
    """Split settings into those of each row that differ, and those that all rows have."""
    settings = [_list_settings(row) for row in rows]
    differ = [len(set(column)) > 1 for column in zip(*settings, strict=True)]
    varied = [[one for one, is_own in zip(own, differ, strict=True) if is_own] for own in settings]
    return varied, [one for one, is_own in zip(settings[0], differ, strict=True) if not is_own] if settings else []


def _list_settings(row: BenchRow) -> list[str]:
    one = row.candidate
    threads = f"{one.threads} thread" + "s" * (one.threads > 1)
    size = "" if one.image_size is None else f"image size {one.image_size}"
    return [one.runtime, row.precision, size, row.input, f"batch of {one.batch_size}", threads]


def _print(result: BenchResult, console: Console) -> None:
    """Print a table as narrow as it can be: settings that all candidates have stand above it."""
    from rich.table import Table
    from rich.text import Text

    varied, same = _split_settings(result.rows)
    has_ap = any(row.ap is not None for row in result.rows)
    console.print(", ".join(filter(None, same)), highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("median ms", "p95 ms", "ratio", "images/s", "MiB", *(["AP"] if has_ap else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row, own in zip(result.rows, varied, strict=True):
        name = ", ".join([row.candidate.title, *filter(None, own)])
        numbers = [f"{row.median * 1e3:.1f}", f"{row.p95 * 1e3:.1f}", f"{row.ratio:.2f}", f"{row.throughput:.1f}"]
        numbers.append("–" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}")
        if has_ap:
            numbers.append("–" if row.ap is None else f"{row.ap:.3f}")
        table.add_row(Text(printable_text(name)), *numbers)
    console.print(table)
    if result.uncertified:
        names = ", ".join(map(printable_text, result.uncertified))
        console.print(
            f"without a certificate, and so without AP: {names}", highlight=False, markup=False, soft_wrap=True
        )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read what was typed, and check it as far as it can be without any model."""
    parser = CommandParser(
        "bench",
        description="Latency, throughput and peak memory of models and exported files, in rounds over all of them.\n"
        "Options that take several values are separated by commas; every combination is measured.",
    )
    parser.add_argument("models", metavar="MODEL_OR_FILE", nargs="+", help="as for `eval`, or FILE.onnx, FILE.xml")
    lists: dict[str, tuple[str, Callable[[str], Any], str, str]] = {
        "--batch-size": ("N,...", int, "1", "images at a time (default: 1)"),
        "--image-size": ("N,...", int, "", "of the network inputs of models (default: their own)"),
        "--image-shape": ("HxW,...", _read_shape, "480x640", "of the images that come in (default: 480x640)"),
        "--threads": ("N,...", int, "", "that compute (default: as many as there are cores)"),
        "--precision": ("P,...", str, "fp32", "of models: fp32, bf16, fp16; files have their own (default: fp32)"),
        "--runtime": (
            "R,...",
            str,
            "",
            "of models eager, folded; of files onnxruntime, openvino (default: all that there are)",
        ),
    }
    for option, (metavar, read, default, text) in lists.items():
        parser.add_argument(option, metavar=metavar, type=_list_of(read), default=_list_of(read)(default), help=text)
    parser.add_argument(
        "--input",
        choices=["bytes", "float"],
        default="bytes",
        help="what comes into models: images, or network inputs; files have their own (default: bytes)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=10, help="over all of them (default: 10)")
    parser.add_argument("--device", default="cpu", help="of models: cpu, cuda, ... (default: cpu)")
    parser.add_argument("--json", metavar="FILE", help="also write all times as JSON; - prints that instead")
    parser.add_argument("--plot", metavar="FILE", help="chart of AP against latency, .svg, .png or .pdf")
    add_trust_argument(parser)
    options = parser.parse(argv)
    if target := json_target(options.json):
        check_target(target)
    if options.plot:
        check_target(Path(options.plot))
    return options


def _list_of(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Make a function that reads values separated by commas."""

    def read_list(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",") if part.strip()))

    read_list.__name__ = "list"
    return read_list


def _read_shape(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape of images; give height x width, as 480x640")
    return int(match[1]), int(match[2])
