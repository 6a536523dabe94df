"""Images of a request: its body as it is, or the parts of a form, bounded while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from boxwright.serving.budget import Budget
from boxwright.serving.refusal import RefusalError, refuse_full

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LINGER = 2.0
"""Seconds in which the rest of a refused body is read and dropped: who still sends would not see the answer."""

_LONGEST_NAME = 200

_LONGEST_HEADER = 1000
"""Bytes of a header whose parameters are read: reading takes the square of them, and holds up everybody else."""

_MOST_DIGITS = 19


@dataclass
class UploadedImage:
    """One image as it was sent.

    Args:
        name: of its file, where the client told one.
        data: bytes of the file.
    """

    name: str
    data: bytearray = field(default_factory=bytearray, repr=False)


@asynccontextmanager
async def receive_images(
    request: Request, max_bytes: int, max_images: int, memory: Budget
) -> AsyncIterator[list[UploadedImage]]:
    """Receive the images of a request, whose bytes count in a budget for as long as this context.

    Args:
        request: whose body has not been read.
        max_bytes: of the body.
        max_images: in a form.
        memory: bytes of all bodies.

    Raises:
        RefusalError: too many bytes, no image, or a damaged form.
        ClientDisconnect: the client went away.
    """
    _check_length(request, max_bytes)
    parts, held = _parts_of(request, max_images), 0
    try:
        async for chunk in request.stream():
            if held + len(chunk) > max_bytes:
                raise _too_long(max_bytes)
            if not memory.try_take(len(chunk)):
                raise refuse_full(1)
            held += len(chunk)
            parts.feed(chunk)
        request.state.is_received = True
        yield parts.finish()
    finally:
        memory.give_back(held)


def is_received(request: Request) -> bool:
    """Tell whether the body of a request was read to its end."""
    return bool(getattr(request.state, "is_received", False))


async def drop_rest(request: Request) -> None:
    """Read the rest of a body without keeping it, for a short time."""
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_LINGER):
            while (message := await request.receive())["type"] == "http.request":
                if not message.get("more_body"):
                    return


def _check_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "").lstrip("0")
    if length.isdecimal() and (len(length) > _MOST_DIGITS or int(length) > max_bytes):
        raise _too_long(max_bytes)


def _too_long(max_bytes: int) -> RefusalError:
    return RefusalError(413, f"the body has more than {max_bytes:,} bytes")


def _parts_of(request: Request, max_images: int) -> _Body | _Form:
    content_type = request.headers.get("content-type", "")
    if len(content_type) > _LONGEST_HEADER:
        raise RefusalError(400, f"the form is damaged: its Content-Type has more than {_LONGEST_HEADER:,} bytes")
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return _Body(UploadedImage(""))
    if not options.get(b"boundary"):
        raise RefusalError(400, "the form has no boundary in its Content-Type")
    try:
        return _Form(options[b"boundary"], max_images)
    except FormParserError as error:
        raise _damaged_form(error) from None


def _damaged_form(error: Exception) -> RefusalError:
    return RefusalError(400, f"the form is damaged: {' '.join(str(error).split())}")


class _Body:
    """A body that is one image."""

    def __init__(self, image: UploadedImage) -> None:
        self._image = image

    def feed(self, chunk: bytes) -> None:
        self._image.data += chunk

    def finish(self) -> list[UploadedImage]:
        if not self._image.data:
            raise RefusalError(400, "the body is empty; send the bytes of an image, or a form with files")
        return [self._image]


class _Form:
    """A form, of whose fields each is an image; nothing of it goes to the disk."""

    def __init__(self, boundary: bytes, max_images: int) -> None:
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._take,
            "on_header_begin": self._begin_header,
            "on_header_field": self._take_name,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)
        self._images: list[UploadedImage] = []
        self._max_images = max_images
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition = bytearray()
        self._is_complete = False

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _damaged_form(error) from None

    def finish(self) -> list[UploadedImage]:
        if not self._is_complete:
            raise RefusalError(400, "the form is damaged: its end is missing")
        if not self._images:
            raise RefusalError(400, "the form has no files")
        return self._images

    def _begin(self) -> None:
        # A megabyte of empty parts would take a thousand times as much, and hold up everybody else.
        if len(self._images) == self._max_images:
            raise RefusalError(413, f"a request has at most {self._max_images} images")
        self._images.append(UploadedImage(""))
        self._disposition = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._images[-1].data += memoryview(data)[start:end]

    def _begin_header(self) -> None:
        self._header_name, self._header_value = bytearray(), bytearray()

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        if len(self._header_value) > _LONGEST_HEADER:
            raise RefusalError(400, f"the form is damaged: a header in it has more than {_LONGEST_HEADER:,} bytes")

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value

    def _end_headers(self) -> None:
        # Once for each part, however often it has that header.
        if self._disposition:
            self._images[-1].name = _file_name(self._disposition.decode("utf-8", "replace"))

    def _end(self) -> None:
        self._is_complete = True


def _file_name(disposition: str) -> str:
    """Return the file's name in a header, or that of its field; without folders."""
    message = Message()
    message["content-disposition"] = disposition.replace("\\", "/")
    name = message.get_filename() or str(message.get_param("name", "", "content-disposition"))
    return name.rpartition("/")[2][:_LONGEST_NAME]
