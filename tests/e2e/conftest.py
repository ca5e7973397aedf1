"""Fixtures: one stack and one browser for all browser tests. Each test uses its own projects and windows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from stack.settings import CHECKOUT
from tests.e2e.page import LabelingPage, launch_browser
from tests.e2e.running_stack import RunningStack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as e2e, with a longer time limit."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Yield a running stack. With OSPREY_E2E_STATE_DIR it keeps running for the next run, for work on these tests."""
    kept = os.environ.get("OSPREY_E2E_STATE_DIR")
    running = RunningStack(Path(kept) if kept else tmp_path_factory.mktemp("stack"))
    try:
        print(running.command("up").stdout)
        yield running
    finally:
        if not kept:
            running.command("down", check=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield Chromium: Debian's, or the one that OSPREY_CHROMIUM names."""
    executable = os.environ.get("OSPREY_CHROMIUM") or shutil.which("chromium")
    assert executable, "the browser tests need chromium: `make test` installs Debian's, or name one in OSPREY_CHROMIUM"
    with sync_playwright() as playwright:
        browser = launch_browser(playwright, executable)
        yield browser
        browser.close()


@pytest.fixture
def window(
    stack: RunningStack, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Callable[..., LabelingPage]]:
    """Yield a function that opens a signed-in window; at the end, fail if a page has thrown an exception."""
    opened: list[LabelingPage] = []
    shots = Path(os.environ.get("OSPREY_SCREENSHOTS", CHECKOUT / "build" / "screenshots")) / request.node.name

    def open_window(*, auto_accept: bool = True, login: tuple[str, str] | None = None) -> LabelingPage:
        page = LabelingPage(browser, stack.url, shots, auto_accept=auto_accept)
        opened.append(page)
        page.sign_in(*(login or stack.admin))
        return page

    yield open_window
    for number, page in enumerate(opened):
        page.shot(f"end-{number}")
        page.close()
    errors = [error for page in opened for error in page.errors]
    assert not errors, f"the page threw exceptions: {errors}"
