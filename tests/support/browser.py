"""Debian's Chromium, headless, for tests that look at pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "chromium is not installed (Debian: apt-get install chromium)"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, ended behind the block; root may not use its sandbox."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
