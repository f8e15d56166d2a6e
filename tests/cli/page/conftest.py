"""A real Chromium, for which every name below .example leads to this machine, as after DNS rebinding."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")  # playwright keeps an event loop running on this thread
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-dev.txt)")
    api.expect.set_options(timeout=60_000)
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, _NAMES)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("needs Chromium: install it, or let `.venv/bin/playwright install chromium` do so")
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"]  # tests may run as root
        started = playwright.chromium.launch(executable_path=found, args=arguments)
        yield started
        started.close()
