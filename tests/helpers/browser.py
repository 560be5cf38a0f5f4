"""A headless Chromium for tests of pages, where one is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The program, from TECAFN_CHROMIUM or the path; None = there is none."""
    named = os.environ.get("TECAFN_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """Playwright's browser, which needs no download of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = chromium()
        assert program is not None, "ask for chromium() first"
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
