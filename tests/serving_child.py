"""A process that serves."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path


class ServingProcess:
    """A process that serves, and the address that it has told."""

    def __init__(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "boxwright", "serve", *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline()
        match = re.match(r"ready at http://127\.0\.0\.1:(\d+)/", self.line)
        assert match, self.line + self.process.stderr.read()
        self.port = int(match[1])

    def ask(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def metric(self, name: str) -> float:
        _, text = self.ask("/metrics")
        match = re.search(rf"^boxwright_{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
        assert match
        return float(match[1])

    def __enter__(self) -> ServingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)
