"""Certificates on the terminal."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from boxwright.cli.certificate_table import certificate_tables
from boxwright.exporting.certificate import Certificate, ClassDifference, Measurements, PixelDifference
from boxwright.exporting.comparison import DetectionAgreement

CERTIFICATE = Certificate(
    file="x.onnx",
    sha256="0" * 64,
    runtime="onnxruntime",
    precision="int8",
    tolerance=0.5,
    measurements=Measurements(
        of_model={"AP": 0.5, "AP50": 0.75, "APs": -1.0},
        of_file={"AP": 0.496, "AP50": 0.752, "APs": -1.0},
        classes=(
            ClassDifference(category_id=1, name="[red]", of_model=0.4, of_file=0.392),
            ClassDifference(category_id=2, name="none", of_model=-1.0, of_file=-1.0),
        ),
    ),
    agreement=DetectionAgreement(total=10, num_matched=9, num_apart=1, box_difference=0.01, score_difference=0.02),
    pixels=PixelDifference(images=4, largest=1.0, fraction=0.0),
    float32=("backbone.conv1",),
    context={},
    speed=(
        {"runtime": "folded", "precision": "fp32", "median_ms": 10.0, "p95_ms": 11.0}
        | {"images_per_second": 100.0, "ratio": 1.0, "peak_bytes": 3 * 2**20},
    ),
)


def lines_of(certificate: Certificate) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(certificate_tables(certificate))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_model_and_file_side_by_side() -> None:
    lines = lines_of(CERTIFICATE)
    assert lines == [
        "model file difference",
        "AP 0.5000 0.4960 -0.40",
        "AP50 0.7500 0.7520 +0.20",
        "APs – – –",
        "class model file difference",
        "[red] 0.4000 0.3920 -0.80",
        "none – – –",
        "median ms p95 ms images/s ratio MiB",
        "folded, fp32 10.0 11.0 100.0 1.00 3",
        "on the same network input, 9 of 10 detections agree, boxes to 1.0e-02 of their size, scores to 2.0e-02, "
        "1 are further apart",
        "pixels of the network input: 1 gray levels off at most, 0.000% of them by more than one",
        "in float32 stay: backbone.conv1",
        "x.onnx in onnxruntime, int8: accepted",
    ]


def test_a_rejected_file() -> None:
    (line,) = (one for one in lines_of(replace(CERTIFICATE, tolerance=0.3)) if "REJECTED" in one)
    assert line == (
        "x.onnx in onnxruntime, int8: REJECTED: AP of the file is 0.40 points below the model's, and may be 0.3"
    )


def test_float32_may_not_gain_either() -> None:
    better = replace(
        CERTIFICATE, measurements=Measurements(of_model={"AP": 0.5}, of_file={"AP": 0.6}, classes=()), tolerance=0.1
    )
    assert better.is_accepted
    agreed = DetectionAgreement(total=10, num_matched=10)
    (fault,) = replace(better, precision="fp32", agreement=agreed).faults
    assert fault.startswith("AP of the file is 10.00 points above the model's")
