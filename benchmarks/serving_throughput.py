"""Images a second of a service at several clients, against calling the file in a loop, in turn.

::

    python benchmarks/serving_throughput.py model.onnx
    python benchmarks/serving_throughput.py model.onnx --clients 8 --images DIR

Both sides decode the same files. The clients share the machine with the service. Fails where the service has less than
0.9 times as many as the loop.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright_runtime import Runtime
from serving_process import draw_images, serve_in_process

LEAST = 0.9


def call_in_loop(runtime: Runtime, images: list[bytes]) -> float:
    """Predict images one after the other; return the seconds."""
    start = time.perf_counter()
    for image in images:
        runtime.predict(image, threshold=0.3)
    return time.perf_counter() - start


def ask_service(port: int, images: list[bytes], clients: int) -> float:
    """Send images by several clients, each of which waits for its answers; return the seconds."""

    def ask(own: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for image in own:
            connection.request("POST", "/predict", image)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
        connection.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, [images[first::clients] for first in range(clients)]))
    return time.perf_counter() - start


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", help="an exported file")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=64, help="images in each round")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; drawn ones where left out")
    options, more = parser.parse_known_args()
    files = draw_images(24) if options.images is None else [one.read_bytes() for one in options.images.glob("*.jpg")]
    images = [files[index % len(files)] for index in range(options.count)]
    ratios = []
    with serve_in_process(options.file, *more) as (_, port):
        runtime = Runtime(options.file)
        for number in range(options.rounds + 1):
            looped, asked = call_in_loop(runtime, images), ask_service(port, images, options.clients)
            if number:
                ratios.append(looped / asked)
                print(f"loop {len(images) / looped:.1f}/s, service {len(images) / asked:.1f}/s, ratio {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(f"{options.clients} clients: {ratio:.2f} times the loop, median of {len(ratios)} rounds")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
