"""Certificates of exported files on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boxwright_runtime.printable_names import printable_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from boxwright.exporting.certificate import Certificate

_SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "segm.AP", "segm.AP50", "top1", "top5")


def certificate_tables(certificate: Certificate) -> Group:
    """Return a certificate for ``rich.print``: model and file side by side, then what else was compared."""
    from rich.console import Group
    from rich.text import Text

    numbers = certificate.measurements
    shown = [(name, numbers.of_model[name], numbers.of_file[name]) for name in _SHOWN if name in numbers.of_model]
    classes = [(one.name, one.of_model, one.of_file) for one in numbers.classes]
    parts: list[Any] = [_compare("", shown), _compare("class", classes)]
    if certificate.speed:
        parts.append(_speed_table(certificate))
    return Group(*parts, *map(Text, _lines(certificate)))


def _compare(title: str, rows: list[tuple[str, float, float]]) -> Table:
    """Make a table of a number of the model, of the file, and the difference in points of 100."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for name in ("model", "file", "difference"):
        table.add_column(name, justify="right")
    for name, of_model, of_file in rows:
        is_defined = of_model >= 0
        values = (f"{of_model:.4f}", f"{of_file:.4f}", f"{100 * (of_file - of_model):+.2f}") if is_defined else "–––"
        table.add_row(Text(printable_text(name)), *values)
    return table


def _speed_table(certificate: Certificate) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("median ms", "p95 ms", "images/s", "ratio", "MiB"):
        table.add_column(name, justify="right")
    for row in certificate.speed:
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f}"
        numbers = (f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['images_per_second']:.1f}")
        table.add_row(f"{row['runtime']}, {row['precision']}", *numbers, f"{row['ratio']:.2f}", peak)
    return table


def _lines(certificate: Certificate) -> list[str]:
    lines = [f"on the same network input, {certificate.agreement.describe()}"]
    if certificate.pixels is not None:
        pixels = certificate.pixels
        lines.append(
            f"pixels of the network input: {pixels.largest:.0f} gray levels off at most, "
            f"{pixels.fraction:.3%} of them by more than one"
        )
    if certificate.float32:
        lines.append(f"in float32 stay: {', '.join(certificate.float32)}")
    verdict = "accepted" if certificate.is_accepted else f"REJECTED: {'; '.join(certificate.faults)}"
    lines.append(f"{certificate.file} in {certificate.runtime}, {certificate.precision}: {verdict}")
    return lines
