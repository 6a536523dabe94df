"""The page at ``/``: one file without anything from outside, and headers that hold it to that."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page_text() -> str:
    """Return the page."""
    return files("boxwright.serving").joinpath("page.html").read_text(encoding="utf-8")


@cache
def page_headers() -> dict[str, str]:
    """Return the headers with which a browser runs the page's own script alone, and asks its own address alone."""
    sources = {kind: _hash_blocks(kind) for kind in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


def _hash_blocks(kind: str) -> str:
    blocks = re.findall(rf"<{kind}>(.*?)</{kind}>", page_text(), re.DOTALL)
    digests = (hashlib.sha256(block.encode()).digest() for block in blocks)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
