"""The pictures of docs/web.md and the README: the real page in Chromium, before a server of the bundled models.

Needs Debian's chromium. Run by `make page`.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.demo import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WIDTH, HEIGHT = 1360, 1240
PATIENCE_MS = 60_000
# A character that surprised, after the first lines.
SURPRISING = """() => [...document.querySelectorAll("#text i")].findIndex(
  (each, index) => index > 120 && Number(each.style.backgroundColor.split(/[,)]/)[3]) > 0.42)"""


def main() -> None:
    """Write a light and a dark picture into the folder of the command line."""
    folder = Path(sys.argv[1])
    expect.set_options(timeout=PATIENCE_MS)
    with running_server() as target, page_of(target) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with picture(browser, f"{url}/?seed=4", "light", folder / "web-light.png") as page:
            page.select_option("#view-memory select >> nth=1", "line")
            page.locator("#text i").nth(page.evaluate(SURPRISING)).click()
            expect(page.locator("#bars th").nth(1)).to_have_text("logit")
        with picture(browser, f"{url}/?seed=4&model=elman-128&tab=step", "dark", folder / "web-dark.png") as page:
            page.locator("#text i").nth(130).click()
            page.select_option("#step-network", "session")
            expect(page.locator("#view-step table")).to_be_visible()
        browser.close()


@contextmanager
def picture(browser: Browser, address: str, scheme: str, path: Path) -> Iterator[Page]:
    """Open the page, let it write, and take its picture when the block ends."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.goto(address)
    expect(page.locator("#status")).to_have_text("ready")
    page.fill("#prompt", "ROMEO:\nWhat light is this")
    page.fill("#count", "320")
    page.click("#go")
    expect(page.locator("#text i")).to_have_count(345)
    expect(page.locator("#status")).to_have_text("ready")
    expect(page.locator(".heat[aria-busy]")).to_have_count(0)
    yield page
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path)
    page.close()


@contextmanager
def page_of(target: str) -> Iterator[str]:
    """Run `elman-web` on a free port while entered; yield its address."""
    command = [sys.executable, "-m", "elman_web", "--target", target, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        running = next(line for line in process.stderr if "running on http" in line)
        try:
            yield running.split()[4]
        finally:
            process.terminate()
            process.communicate()


if __name__ == "__main__":
    main()
