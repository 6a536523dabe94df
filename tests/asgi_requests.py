"""Requests to an ASGI application, message by message: bodies in chunks, late ones, clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

Application = Callable[..., Awaitable[None]]


@dataclass
class Answered:
    """An answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def content(self) -> Any:
        """JSON of the body."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The line of a refusal."""
        assert set(self.content) == {"error"}
        assert "\n" not in self.content["error"]
        return str(self.content["error"])


@dataclass
class Request:
    """A request, whose body may never end.

    Args:
        path: with what follows a question mark.
        body: in chunks.
        method: POST where there is a body, else GET.
        headers: by name.
        ends: False where the client stops in the middle of its body and waits.
        gone: set once the client has gone.
    """

    path: str
    body: Iterable[bytes] = ()
    method: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: bool = True
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    num_read: int = 0

    async def send_to(self, application: Application) -> Answered:
        """Send it, and return the answer."""
        chunks, answered = list(self.body), Answered()
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "method": self.method or ("POST" if chunks else "GET"),
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> dict[str, Any]:
            if self.num_read < len(chunks):
                chunk = chunks[self.num_read]
                self.num_read += 1
                more = self.num_read < len(chunks) or not self.ends
                return {"type": "http.request", "body": chunk, "more_body": more}
            if not chunks and not self.num_read:
                self.num_read = 1
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answered.status = message["status"]
                answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answered.body += message.get("body", b"")

        await application(scope, receive, send)
        return answered


def encode_image(height: int, width: int, level: int = 200, kind: str = "PNG") -> bytes:
    """Encode an image of one gray level."""
    buffer = BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def encode_form(files: Mapping[str, bytes], boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """Encode a form of files, by their names; return it and its headers."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), headers


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into chunks."""
    return [data[start : start + size] for start in range(0, len(data), size)]
