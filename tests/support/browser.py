"""Chromium without a screen, driven by Playwright."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.partners import is_strict, partner

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    "--no-sandbox",  # which a root may not have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 15
# The bytes of a canvas, in base64: a list of numbers would take long to arrive.
READ_CANVAS = """canvas => {
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    let text = "";
    for (let i = 0; i < data.length; i += 8192) {
        text += String.fromCharCode(...data.subarray(i, i + 8192));
    }
    return [height, width, btoa(text)];
}"""


@contextmanager
def running_browser() -> Iterator[Any]:
    """Run Chromium; skip where there is none."""
    playwright = partner("playwright.sync_api")
    if CHROMIUM is None:
        if is_strict():
            pytest.fail("Chromium is not installed")
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Tab:
    """A page in a browser profile of its own, and all that it complains of."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)

    def _listen(self, message: Any) -> None:
        # That an object is not there is the page's to say; the hint is meant for READ_CANVAS.
        is_expected = message.text.startswith(("Failed to load resource", "Canvas2D: Multiple"))
        if message.type in ("error", "warning") and not is_expected:
            self.complaints.append(message.text)

    def open(self, url: str) -> Tab:
        """Go to a URL, and wait until pictures are drawn or a message says why not."""
        self.page.goto("about:blank")
        self.page.goto(url)
        self.wait_for(lambda: self.is_drawn() or self.messages())
        return self

    def is_drawn(self) -> bool:
        """Whether any sample has been drawn."""
        script = "performance.getEntriesByName('first samples drawn').length > 0"
        return bool(self.page.evaluate(script))

    def seconds_to_first_samples(self) -> float:
        """Return how long after the navigation the first samples were drawn."""
        script = "performance.getEntriesByName('first samples drawn')[0].startTime"
        return float(self.page.evaluate(script)) / 1000

    def wait_for(self, condition: Any) -> Any:
        """Wait until a condition holds; return what it gave.

        Playwright's own ``wait_for_function`` needs the permission to evaluate strings.
        """
        until = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < until, (self.messages(), self.complaints)
            self.page.wait_for_timeout(20)
        return found

    def text(self, selector: str) -> str:
        """Return the text that is seen of an element."""
        return str(self.page.inner_text(selector))

    def messages(self) -> list[str]:
        """Return the messages on the page."""
        return list(self.page.locator("#messages p").all_inner_texts())

    def click_class(self, name: str, **options: Any) -> None:
        """Click the button of a class."""
        self.page.locator(f'[data-class="{name}"]').click(**options)

    def canvas(self, selector: str) -> npt.NDArray[np.uint8]:
        """Return the pixels of a canvas: (row, col, red green blue alpha)."""
        height, width, text = self.page.locator(selector).first.evaluate(READ_CANVAS)
        flat = np.frombuffer(base64.b64decode(text), np.uint8)
        return flat.reshape(height, width, 4)

    def cells(self, rows: int, columns: int) -> npt.NDArray[np.uint8]:
        """Return the images in the first band of the sheet: (row, column, row, col, colour)."""
        pixels = self.canvas("#sheet canvas")
        n_columns = int(self.page.get_attribute("#sheet", "aria-colcount"))
        gap = (pixels.shape[1] - n_columns * columns) // max(1, n_columns - 1)
        n_rows = (pixels.shape[0] + gap) // (rows + gap)
        padded = np.pad(pixels, ((0, gap), (0, gap), (0, 0)))
        grid = padded.reshape(n_rows, rows + gap, n_columns, columns + gap, 4)
        return grid.transpose(0, 2, 1, 3, 4)[:, :, :rows, :columns]

    def close(self) -> None:
        """Close the profile."""
        self.context.close()
