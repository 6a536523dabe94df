"""A server on this machine that answers like the Hugging Face hub, or like a plain folder of files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeServer:
    """Content of the server, and the requests that it had.

    Args:
        files: content by path: ``/OWNER/NAME/FILE`` of repositories.
        status: answers, by path, that are errors: a number and, for the hub, its code.
        cut: bytes after which the connection breaks, by path, once.
        ranges: answer requests for the rest of a file.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(server: FakeServer) -> Iterator[FakeServer]:
    """Run the server until the end of the block."""
    handler = type("Handler", (_Handler,), {"fake": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self, has_body: bool) -> None:
        fake, part = self.fake, self.headers.get("Range")
        fake.requests.append((self.command, self.path, part))
        repository, _, rest = self.path.partition("/resolve/")
        path = f"{repository}/{rest.partition('/')[2]}" if rest else self.path
        code, error = fake.status.get(path) or fake.status.get(repository) or (0, "")
        content = fake.files.get(path)
        if not code and rest and repository not in {name.rpartition("/")[0] for name in fake.files}:
            code, error = 404, "RepoNotFound"
        if not code and content is None:
            code, error = 404, "EntryNotFound"
        if code:
            self._send(code, {"X-Error-Code": error, "X-Error-Message": error, "X-Repo-Commit": COMMIT}, b"", has_body)
            return
        assert content is not None
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if part and fake.ranges:
            start = int(part.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                self._send(416, {}, b"", has_body)
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, headers, content[start:], has_body)
            return
        self._send(200, headers, content, has_body, fake.cut.pop(path, None) if has_body else None)

    def _send(self, code: int, headers: dict[str, str], body: bytes, has_body: bool, cut: int | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
