"""The page: nothing from outside; and, in a real browser, the boxes of the API."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asgi_requests import encode_image
from boxwright.serving.page import page_headers, page_text
from chromium_driver import open_browser
from serving_child import ServingProcess

IMAGE = encode_image(60, 80)
DETECTIONS = [
    {"category_id": 7, "category_name": "thing", "bbox": [0, 0, 80, 60]},
    {"category_id": 3, "category_name": "quarter", "bbox": [0, 0, 40, 30]},
]


def test_nothing_is_from_outside() -> None:
    text = page_text()
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nobody asks
    assert not re.search(r"@import|<link(?! rel=\"icon\" href=\"data:,\")|<script .*src=|\son\w+=|\sstyle=", text)
    policy = page_headers()["Content-Security-Policy"]
    assert "'unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "default-src 'none'" in policy


def test_every_control_has_a_name() -> None:
    text = page_text()
    named = set(re.findall(r'<label for="([\w-]+)"', text)) | set(
        re.findall(r"<label[^>]*><input id=\"([\w-]+)\"", text)
    )
    named |= set(re.findall(r'<label id="[\w-]+"[^>]*><input id="([\w-]+)"', text))
    for tag, identity in re.findall(r'<(input|video|ul)[^>]*\bid="([\w-]+)"[^>]*>', text):
        attributes = re.search(rf'<{tag}[^>]*\bid="{identity}"[^>]*>', text)
        assert attributes
        assert identity in named or "aria-label" in attributes[0] or identity == "classes", identity
    assert '<html lang="en">' in text


class Page:
    """The page in a browser."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.wait(lambda: "class" in self.text("summary"))

    def wait(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < until, (self.text("status"), self.browser.get_log("browser"))
            time.sleep(0.05)

    def text(self, identity: str) -> str:
        return str(self.browser.find_element("id", identity).text)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def boxes(self) -> list[list[float]]:
        """Boxes as the browser draws them, in pixels of the image, in the order of the list."""
        script = """
            const view = document.getElementById("view").getBoundingClientRect();
            const scale = arguments[0] / view.width;
            const groups = [...document.querySelectorAll("#boxes .object")];
            groups.sort((one, other) => one.dataset.index - other.dataset.index);
            return groups.map((group) => {
                const box = group.querySelector(".edge").getBBox(), matrix = group.getScreenCTM();
                const left = (box.x * matrix.a + matrix.e - view.left) * scale;
                const top = (box.y * matrix.d + matrix.f - view.top) * scale;
                return [left, top, box.width * matrix.a * scale, box.height * matrix.d * scale];
            });"""
        return list(self.run(script, 80))

    def listed(self) -> list[str]:
        return [one.text.replace("\n", " ") for one in self.browser.find_elements("css selector", "#objects li")]

    def drop(self, data: bytes, kind: str = "drop") -> None:
        """Let an image fall on the page, or paste it."""
        script = """
            const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
            const options = {bubbles: true, cancelable: true};
            const event = arguments[1] === "paste"
                ? new ClipboardEvent("paste", {...options, clipboardData: transfer})
                : new DragEvent("drop", {...options, dataTransfer: transfer});
            document.getElementById("stage").dispatchEvent(event);"""
        self.run(script, base64.b64encode(data).decode(), kind)

    def set_threshold(self, value: float) -> None:
        script = """
            const slider = document.getElementById("threshold");
            slider.value = arguments[0];
            slider.dispatchEvent(new Event("input", {bubbles: true}));"""
        self.run(script, value)


@pytest.fixture(scope="module")
def service(exported: Path) -> Iterator[ServingProcess]:
    with ServingProcess(exported) as process:
        yield process


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def page(browser: Any, service: ServingProcess) -> Iterator[Page]:
    opened = Page(browser, f"http://127.0.0.1:{service.port}/")
    yield opened
    assert browser.get_log("browser") == []


def requests_of(service: ServingProcess) -> float:
    return service.metric('requests_total{code="200"}')


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "drop", "paste"])
def test_an_image_gives_the_boxes_of_the_api(page: Page, service: ServingProcess, tmp_path: Path, way: str) -> None:
    (tmp_path / "image.png").write_bytes(IMAGE)
    if way == "file":
        page.browser.find_element("id", "file").send_keys(str(tmp_path / "image.png"))
    else:
        page.drop(IMAGE, way)
    page.wait(lambda: "detections" in page.text("status"))
    rows = json.loads(service.ask("/predict", IMAGE)[1])["images"][0]["detections"]
    assert len(rows) == 2
    np.testing.assert_allclose(page.boxes(), [row["bbox"] for row in rows], atol=0.5)
    assert page.listed() == [f"{row['category_name']} {row['score']:.2f}" for row in rows]


@pytest.mark.slow
def test_masks_are_those_of_the_api(page: Page) -> None:
    """The mask's area, as the browser has it, is the number of its pixels."""
    page.drop(IMAGE)
    page.wait(page.boxes)
    script = """
        const row = state.rows[arguments[0]];
        const inside = new Path2D(outline(row.segmentation));
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        const pixels = [];
        for (let y = 0; y < 60; y++) for (let x = 0; x < 80; x++)
            pixels.push(context.isPointInPath(inside, x + 0.5, y + 0.5) ? 1 : 0);
        return [pixels, row.segmentation];"""
    from boxwright_runtime.masks import decode_rle

    for index in range(2):
        pixels, mask = page.run(script, index)
        expected = decode_rle(mask)
        assert expected.any()
        np.testing.assert_array_equal(np.array(pixels).reshape(60, 80) > 0, expected)


@pytest.mark.slow
def test_the_slider_and_the_classes_ask_for_nothing(page: Page, service: ServingProcess) -> None:
    page.drop(IMAGE)
    page.wait(lambda: len(page.listed()) == 2)
    before = requests_of(service)
    page.set_threshold(0.5)
    assert [line.split()[0] for line in page.listed()] == ["thing"]
    page.set_threshold(0.9)
    assert page.listed() == []
    assert page.text("nothing") == "None above the least score"
    page.set_threshold(0.05)
    page.browser.find_elements("css selector", "#classes input")[0].click()
    assert [line.split()[0] for line in page.listed()] == ["quarter"]
    page.browser.find_element("id", "all").click()
    page.browser.find_element("id", "tuned").click()  # 0.5 and 0.9
    assert [line.split()[0] for line in page.listed()] == ["thing"]
    assert requests_of(service) == before


@pytest.mark.slow
def test_without_a_mouse(page: Page) -> None:
    """All controls come by Tab, in order, and arrows go through the detections."""
    from selenium.webdriver import ActionChains, Keys

    def press(key: str) -> None:
        ActionChains(page.browser).send_keys(key).perform()

    page.drop(IMAGE)
    page.wait(lambda: len(page.listed()) == 2)
    reached = []
    for _ in range(12):
        press(Keys.TAB)
        reached.append(page.run("return document.activeElement.id || document.activeElement.tagName"))
        if reached[-1] == "objects":
            break
    assert reached[:4] == ["file", "open-camera", "download", "threshold"]
    assert reached[-1] == "objects"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for expected in ("object-0", "object-1", "object-1"):
        press(Keys.ARROW_DOWN)
        chosen = page.run("return document.activeElement.getAttribute('aria-activedescendant')")
        assert chosen == expected
        shown = page.run("return [...document.querySelectorAll('#boxes .object.on')].map((one) => one.dataset.index)")
        assert shown == [expected.removeprefix("object-")]


@pytest.mark.slow
def test_what_is_downloaded_is_what_is_shown(page: Page) -> None:
    page.drop(IMAGE)
    page.wait(lambda: len(page.listed()) == 2)
    page.set_threshold(0.5)
    page.run("""
        window.saved = null;
        URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return "#"; };""")
    page.browser.find_element("id", "download").click()
    page.wait(lambda: page.run("return window.saved"))
    (image,) = json.loads(page.run("return window.saved"))["images"]
    assert (image["file_name"], image["width"], image["height"]) == ("dropped.png", 80, 60)
    (row,) = image["detections"]
    assert {key: row[key] for key in DETECTIONS[0]} == DETECTIONS[0]
    assert row["segmentation"]["size"] == [60, 80]


@pytest.mark.slow
def test_the_camera(page: Page) -> None:
    """Chromium's own false camera."""
    page.set_threshold(0.05)
    page.browser.find_element("id", "open-camera").click()
    page.wait(lambda: page.browser.find_element("id", "shoot").is_displayed())
    page.browser.find_element("id", "shoot").click()
    page.wait(lambda: "camera.jpg" in page.text("status"))
    assert page.listed()
    assert not page.browser.find_element("id", "shoot").is_displayed()


@pytest.mark.slow
def test_images_that_a_browser_cannot_show(page: Page) -> None:
    page.drop(encode_image(60, 80, kind="TIFF"))
    page.wait(lambda: len(page.listed()) == 2)
    np.testing.assert_allclose(page.boxes(), [row["bbox"] for row in DETECTIONS], atol=0.5)


@pytest.mark.slow
def test_refusals_are_told(browser: Any, service: ServingProcess) -> None:
    page = Page(browser, f"http://127.0.0.1:{service.port}/")
    page.drop(b"no image")
    page.wait(lambda: "cannot be read" in page.text("status"))
    page.drop(IMAGE)
    page.wait(lambda: "detections" in page.text("status"))
    (line,) = browser.get_log("browser")
    assert "400 (Bad Request)" in line["message"]  # the browser's own line on the answer


@pytest.mark.slow
def test_a_key_is_asked_for(browser: Any, exported: Path) -> None:
    with ServingProcess(exported, environment={"BOXWRIGHT_KEY": "s3cret"}) as process:
        browser.get(f"http://127.0.0.1:{process.port}/")
        page = object.__new__(Page)
        page.browser = browser
        page.wait(lambda: browser.find_element("id", "key").is_displayed())
        page.drop(IMAGE)
        browser.find_element("id", "key").send_keys("s3cret\n")
        page.wait(lambda: "detections" in page.text("status"))
        assert len(page.listed()) == 2
        assert not browser.find_element("id", "key").is_displayed()
    browser.get_log("browser")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_can_be_read(page: Page, scheme: str) -> None:
    """WCAG's contrast of 4.5 between text and its background, in both schemes."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    names = ("ink", "soft", "panel", "paper", "alert", "accent", "accent-ink", "back")
    script = (
        "return arguments[0].map((name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`))"
    )
    tones = dict(zip(names, (luminance(one.strip()) for one in page.run(script, names)), strict=True))
    assert (tones["ink"] < tones["paper"]) == (scheme == "light")
    pairs = [("ink", "panel"), ("ink", "paper"), ("soft", "panel"), ("soft", "paper"), ("soft", "back")]
    for letters, ground in [*pairs, ("alert", "paper"), ("accent-ink", "accent")]:
        bright, dark = sorted((tones[letters], tones[ground]), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (letters, ground)


def luminance(color: str) -> float:
    levels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.03928 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.slow
def test_a_narrow_screen_needs_no_scrolling_to_the_side(page: Page) -> None:
    size = page.browser.get_window_size()
    page.browser.set_window_size(500, 800)
    page.drop(IMAGE)
    page.wait(lambda: len(page.listed()) == 2)
    assert page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    np.testing.assert_allclose(page.boxes(), [row["bbox"] for row in DETECTIONS], atol=0.5)
    shot = np.asarray(Image.open(BytesIO(page.browser.get_screenshot_as_png())))
    assert shot.std() > 5
    page.browser.set_window_size(size["width"], size["height"])
