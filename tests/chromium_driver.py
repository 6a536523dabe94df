"""Chromium without a window, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@contextmanager
def open_browser(profile: Path, *flags: str, size: tuple[int, int] = (1280, 860)) -> Iterator[Any]:
    """Start Chromium; skip the test where it, its driver or Selenium is not installed."""
    webdriver: Any = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed: pip install selenium")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, program in programs.items():
        if program is None:
            pytest.skip(f"{name} is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    downloads = {"download.default_directory": str(profile / "downloads")}
    options.add_experimental_option("prefs", downloads)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *flags):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=programs["chromedriver"])
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()
