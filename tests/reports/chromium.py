"""Pages in a real browser, headless Chromium: what its script finds, and what the console says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHECKS = Path(__file__).with_name("page_checks.js")
_SECONDS = 120


def use_page(
    page: Path, folder: Path, *, scheme: Literal["light", "dark"] = "light", width: int = 1280
) -> dict[str, Any]:
    """Open a copy of a page, use it as ``page_checks.js`` does, and return what that says.

    Args:
        page: an HTML file.
        folder: for the copy and the browser's profile.
        scheme: that the reader prefers.
        width: of the window, in pixels.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(PROGRAMS)} is on PATH")
    copy = folder / "copy.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    copy.write_text(text.replace("</body>", f"<script>{CHECKS.read_text()}</script></body>"), encoding="utf-8")
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"),
        *("--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"),
        f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}",
        *(f"--window-size={width},1200", copy.resolve().as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, "\n".join(console)
    written = re.search(r'<pre id="checks">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written is not None, "the script did not come to its end"
    result: dict[str, Any] = json.loads(html.unescape(written[1]))
    return result
