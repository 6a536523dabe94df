"""A service under many clients, some of them hostile: nothing lost, nothing wrong, memory flat.

::

    python benchmarks/serving_load.py model.onnx
    python benchmarks/serving_load.py model.onnx --clients 64 --seconds 300 --queue 32

A tenth of the requests is damaged, huge, slow or broken off. Every other answer is compared with what the file predicts
by itself. Fails where a request is lost, an answer is wrong or memory grows by more than 5 % between the second quarter
of the time and the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from serving_process import agree, draw_images, expected_rows, memory_mib, serve_in_process

THRESHOLD = 0.2
MAX_BYTES = 1_000_000
DEADLINE = 10.0
BAD_FRACTION = 0.1


@dataclass
class Tally:
    """Outcomes of requests by kind and status, and the faults among them."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self, kind: str, status: int | None, expected: tuple[int | None, ...]) -> None:
        """Count an outcome; one that was not expected is a fault."""
        self.outcomes[f"{kind}: {status or 'no answer'}"] += 1
        if status not in expected:
            self.faults.append(f"{kind}: {status}")


class Load:
    """Clients of a service.

    Args:
        port: of the service.
        images: files that are sent.
        rows: that are expected for each.
    """

    def __init__(self, port: int, images: list[bytes], rows: list[list[dict[str, Any]]]) -> None:
        self.port, self.images, self.rows, self.tally = port, images, rows, Tally()
        bad: list[Callable[[random.Random], Awaitable[None]]] = [
            self._damaged,
            self._cut_short,
            self._too_many_bytes,
            self._too_many_chunks,
            self._too_many_pixels,
            self._slow,
            self._never_ending,
            self._broken_off,
            self._gone_before_the_answer,
        ]
        self._bad = bad

    async def run(self, clients: int, seconds: float, pid: int) -> None:
        """Send requests for so long, and look at the memory."""
        end = time.monotonic() + seconds
        watching = asyncio.create_task(self._watch(pid))
        await asyncio.gather(*(self._client(random.Random(seed), end) for seed in range(clients)))
        watching.cancel()

    async def _watch(self, pid: int) -> None:
        while True:
            self.tally.memory.append(await asyncio.to_thread(memory_mib, pid))
            await asyncio.sleep(0.5)

    async def _client(self, rng: random.Random, end: float) -> None:
        while time.monotonic() < end:
            send = rng.choice(self._bad) if rng.random() < BAD_FRACTION else self._good
            try:
                await send(rng)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.tally.faults.append(f"{send.__name__}: {type(error).__name__} {error}")

    async def _good(self, rng: random.Random, *, pause: float = 0.0) -> None:
        index = rng.randrange(len(self.images))
        start = time.monotonic()
        while True:
            status, headers, body = await self._post(self.images[index], pause=pause)
            self.tally.note("slow" if pause else "good", status, (200, 429))
            if status != 429:
                break
            await asyncio.sleep(float(headers["retry-after"]) * rng.uniform(0.5, 1))
        self.tally.seconds.append(time.monotonic() - start)
        if status == 200 and not agree(json.loads(body)["images"][0]["detections"], self.rows[index], THRESHOLD):
            self.tally.faults.append(f"wrong detections in image {index}")

    async def _slow(self, rng: random.Random) -> None:
        await self._good(rng, pause=0.5)

    async def _damaged(self, rng: random.Random) -> None:
        data = bytearray(next(one for one in rng.sample(self.images, len(self.images)) if one.startswith(b"\x89PNG")))
        data[len(data) // 2] ^= 255
        status, *_ = await self._post(bytes(data))
        self.tally.note("damaged", status, (400, 429))

    async def _cut_short(self, rng: random.Random) -> None:
        status, *_ = await self._post(rng.choice(self.images)[:300])
        self.tally.note("cut short", status, (400, 429))

    async def _too_many_bytes(self, _: random.Random) -> None:
        status, *_rest = await self._post(bytes(3 * MAX_BYTES))
        self.tally.note("too many bytes", status, (413, 429))

    async def _too_many_chunks(self, _: random.Random) -> None:
        status, *_rest = await self._post(bytes(3 * MAX_BYTES), chunked=True)
        self.tally.note("too many bytes in chunks", status, (413, 429))

    async def _too_many_pixels(self, _: random.Random) -> None:
        status, *_rest = await self._post(huge_png())
        self.tally.note("too many pixels", status, (413, 429))

    async def _never_ending(self, rng: random.Random) -> None:
        status, *_ = await self._post(rng.choice(self.images), stop_at=200, wait=DEADLINE + 15)
        self.tally.note("never ending", status, (408, 429))

    async def _broken_off(self, rng: random.Random) -> None:
        await self._post(rng.choice(self.images), stop_at=rng.randrange(1, 900), wait=0)
        self.tally.note("broken off", None, (None,))

    async def _gone_before_the_answer(self, rng: random.Random) -> None:
        await self._post(rng.choice(self.images), wait=0)
        self.tally.note("gone before the answer", None, (None,))

    async def _post(
        self, data: bytes, *, pause: float = 0, chunked: bool = False, stop_at: int | None = None, wait: float = 60
    ) -> tuple[int | None, dict[str, str], bytes]:
        """Send an image, whole, in parts or as far as it goes; wait for the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
            writer.write(
                f"POST /predict?threshold={THRESHOLD} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode()
            )
            step = 60_000 if chunked or not pause else len(data) // 3 + 1
            for start in range(0, len(data[:stop_at]), step):
                part = data[:stop_at][start : start + step]
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n" if chunked else part)
                await writer.drain()
                await asyncio.sleep(pause)
            if chunked:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            return (None, {}, b"") if not wait else await asyncio.wait_for(_read_answer(reader), wait)
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


def huge_png() -> bytes:
    """Write the header of a PNG of 100,000 x 100,000 pixels, and little more."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    coded = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def growth(memory: list[float]) -> float:
    """Return by how much the most memory of the last quarter exceeds that of the second, as a fraction."""
    quarter = max(1, len(memory) // 4)
    return max(memory[-quarter:]) / max(memory[quarter : 2 * quarter] or memory) - 1


def main() -> int:
    """Run it and print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", help="an exported file")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--growth", type=float, default=0.05, help="of memory that is no failure, as a fraction")
    options = parser.parse_args()
    images = draw_images(24)
    rows = expected_rows(options.file, images, THRESHOLD)
    bounds = ("--max-bytes", str(MAX_BYTES), "--deadline", str(DEADLINE), "--queue", str(options.queue))
    with serve_in_process(options.file, *bounds, "--workers", str(options.workers)) as (process, port):
        load = Load(port, images, rows)
        asyncio.run(load.run(options.clients, options.seconds, process.pid))
        is_alive = process.poll() is None
    tally, grown = load.tally, growth(load.tally.memory)
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{outcome:36} {count:8,}")
    seconds = sorted(tally.seconds)
    print(
        f"{len(rows)} images, {sum(map(len, rows))} detections expected in them; {len(seconds)} answered, median "
        f"{seconds[len(seconds) // 2]:.2f} s, slowest {seconds[-1]:.2f} s"
    )
    print(f"memory {min(tally.memory):.0f} to {max(tally.memory):.0f} MiB, last quarter {grown:+.1%} on the second")
    for fault in tally.faults[:20]:
        print(f"fault: {fault}")
    print(f"{len(tally.faults)} faults")
    return int(bool(tally.faults) or not is_alive or grown > options.growth)


if __name__ == "__main__":
    sys.exit(main())
