"""A real Chromium, and pages in it that fail a test for what they did wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium"  # Debian's package
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS: Final = 60_000
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, may_lose_server: bool = False, **context: Any) -> Iterator[Page]:
    """Open a page in a profile of its own, and wait until it has found its server.

    At the end: no error on its console, no exception, and no request to another host.
    """
    wrong: list[str] = []
    host = "/".join(url.split("/", 3)[:3])
    profile = browser.new_context(**context)
    profile.set_default_timeout(PATIENCE_MS)
    page = profile.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((host, "blob:", "data:")) else wrong.append(request.url),
    )
    page.on("dialog", lambda dialog: dialog.accept("<b>mine</b>"))
    page.goto(url)
    expect(page.locator("#status")).to_have_text("ready")
    try:
        yield page
    finally:
        profile.close()
    if may_lose_server:
        wrong = [each for each in wrong if not each.startswith("Failed to load resource")]
    assert wrong == []
