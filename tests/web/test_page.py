"""The page in a real browser: every panel, by mouse and by keyboard."""

import hashlib
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from elman_client import Client
from tests.models import CHARACTERS, tiny_model
from tests.server_process import PATIENCE, ServerProcess
from tests.services import need
from tests.web.browser import CHROMIUM, chromium, opened
from tests.web.process import WebProcess

SCRIPT = "<img src=x onerror=alert(1)>"
COUNTING = """() => {
  window.made = { text: 0, bars: 0 };
  const size = (node) => (node instanceof Element ? 1 + node.querySelectorAll("*").length : 0);
  for (const id of Object.keys(window.made)) {
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const node of addedNodes) window.made[id] += size(node);
    }).observe(document.getElementById(id), { childList: true, subtree: true });
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all pages."""
    need("chromium", is_there=Path(CHROMIUM).exists())
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def lab(models, tmp_path_factory) -> Iterator[tuple[ServerProcess, WebProcess]]:
    """A server of few models, and its page."""
    folder: Path = tmp_path_factory.mktemp("lab")
    for name in ("lstm", "bytes"):
        shutil.copy(models / f"{name}.onnx", folder)
    tiny_model(folder / "elman-128.onnx", "elman", hidden_size=24, name="elman-128")
    with (
        ServerProcess(folder, "--store", f"sqlite:{folder / 'sessions.db'}") as server,
        WebProcess(server.address) as web,
    ):
        yield server, web


@pytest.fixture
def page(browser, lab) -> Iterator[Page]:
    """A fresh page on the model `lstm`."""
    with opened(browser, f"{lab[1].url}/?model=lstm&seed=7") as page:
        yield page


def write(page: Page, prompt: str, num_chars: int) -> str:
    """Write a prompt, let the network continue, and return all that is shown."""
    page.fill("#prompt", prompt)
    page.fill("#count", str(num_chars))
    before = page.locator("#text i").count()
    page.click("#go")
    expect(page.locator("#text i")).to_have_count(before + len(prompt) + num_chars)
    expect(page.locator("#status")).to_have_text("ready")
    return shown(page)


def shown(page: Page) -> str:
    """Return the text as the page has it."""
    return page.locator("#text").text_content() or ""


def session(page: Page) -> str:
    """Return the session of the page's address."""
    found = re.search(r"session=([a-z0-9-]+)", page.url)
    assert found
    return found[1]


def test_text_is_written_read_and_found_again(page, lab):
    """What is typed is bold, what follows is the server's text, and the address shows the same page again."""
    text = write(page, "To be", 40)
    with Client(lab[0].address) as client:
        assert client.session(session(page)).transcript().text == text
    assert page.locator("#text i.read").count() == 5
    assert page.locator("#text i").nth(9).evaluate("e => e.style.backgroundColor") != ""
    page.reload()
    expect(page.locator("#text i")).to_have_count(45)
    assert shown(page) == text
    assert page.locator("#text i.read").count() == 5


def test_a_text_that_is_only_read_is_seen_everywhere(page):
    """Nothing is written after it; what is likely next, and the memory, are there all the same."""
    page.fill("#prompt", "To be")
    page.click("#read-only")
    expect(page.locator("#text i.read")).to_have_count(5)
    expect(page.locator("#bars tbody tr")).to_have_count(20)


def test_the_keyboard_does_everything(page):
    """Ctrl+Enter goes, space writes one character, arrows choose one, Escape stops."""
    page.fill("#count", "10")
    page.locator("#prompt").focus()
    page.keyboard.type("To")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text i")).to_have_count(12)
    expect(page.locator("#status")).to_have_text("ready")
    page.locator("#text").focus()
    page.keyboard.press("Space")
    expect(page.locator("#text i")).to_have_count(13)
    expect(page.locator("#status")).to_have_text("ready")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#chosen")).to_contain_text("Position 12")
    page.fill("#count", "2000")
    page.locator("#speed").fill("4")
    page.click("#go")
    expect(page.locator("#text i").nth(15)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("ready")


def test_a_stop_keeps_what_is_shown(page, lab):
    """At five characters a second the server is far ahead; after Stop the session has the page's text."""
    page.fill("#prompt", "A")
    page.locator("#speed").fill("8")
    page.click("#go")
    expect(page.locator("#text i").nth(5)).to_be_visible()
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("ready")
    with Client(lab[0].address) as client:
        assert client.session(session(page)).transcript().text == shown(page)


def test_a_new_character_costs_its_line(page):
    """While the network writes, only new characters are made: nothing of the text or of the bars is made again."""
    write(page, "To be\nor", 100)
    expect(page.locator("#bars th").nth(1)).to_have_text("logit")
    page.evaluate(COUNTING)
    page.fill("#count", "3000")
    page.locator("#speed").fill("12")
    page.click("#go")
    expect(page.locator("#text i").nth(138)).to_be_attached()
    made, num_chars = page.evaluate("[window.made, document.querySelectorAll('#text i').length]")
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("ready")
    assert made["bars"] == 0
    assert num_chars - 108 <= made["text"] <= 2 * (num_chars - 108)  # and the block of each new line
    line = page.locator("#text > div").nth(1)
    assert (line.text_content() or "").count("\n") <= 1
    assert line.evaluate("line => getComputedStyle(line).contentVisibility") == "auto"


def test_another_candidate_forks_exactly(page, lab):
    """A click on an earlier character shows what was likely there; one on another candidate continues with it."""
    text = write(page, "To be", 30)
    first = session(page)
    page.locator("#text i").nth(12).click()
    rows = page.locator("#bars tbody tr")
    expect(rows).to_have_count(20)
    expect(page.locator("#bars th").nth(1)).to_have_text("logit")
    other = page.locator("#bars tr:not(.sampled) button").first
    letter = other.text_content()
    other.click()
    expect(page.locator("#text i")).to_have_count(13)
    assert session(page) != first
    with Client(lab[0].address) as client:
        forked = client.session(session(page)).transcript().text
        assert client.session(first).transcript().text == text
    assert forked[:12] == text[:12]
    assert {"\u21b5": "\n", "\u2423": " "}.get(letter, letter) == forked[12]


def test_the_slider_acts_at_once(page):
    """At temperature 0 only the likeliest is left; a filter cuts, and what is cut stays in grey."""
    write(page, "To be", 3)
    expect(page.locator("#bars th").nth(1)).to_have_text("logit")
    page.locator("#temperature").fill("0")
    expect(page.locator("#bars tr.cut")).to_have_count(19)
    page.locator("#temperature").fill("1")
    expect(page.locator("#bars tr.cut")).to_have_count(0)
    page.locator("summary", has_text="Filters").click()
    page.fill("#top-k", "4")
    page.locator("#top-k").blur()
    expect(page.locator("#bars tr.cut")).to_have_count(16)
    assert "temperature" not in page.url
    assert "topK=4" in page.url


def test_memory_is_a_map_that_colours_the_text(page):
    """Units down, characters across; a row colours the text, a span names units, a property finds one."""
    write(page, "To be", 60)
    canvas = page.locator("#view-memory canvas").nth(1)
    expect(canvas).to_have_attribute("width", "65")
    expect(canvas).to_have_attribute("height", "16")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#view-memory .tip")).to_contain_text("at position 1")
    page.keyboard.press("Enter")
    expect(page.locator("#colour")).to_have_value("unit")
    expect(page.locator("#text i").nth(30)).to_have_attribute("style", re.compile("rgba"))
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#view-memory .chips button")).to_have_count(8)
    page.locator("#view-memory button", has_text="Find").click()
    expect(page.locator("#view-memory .chips")).to_contain_text("of 65 characters are labelled")
    page.locator("#view-memory select").first.select_option(label="gate f, layer 0")
    expect(page.locator("#view-memory .tip")).to_contain_text("FORGET 0")


def test_columns_write_side_by_side(page):
    """Two models on one prompt, in step."""
    page.click("#tab-compare")
    page.locator("#view-compare").get_by_label("Characters").fill("30")
    page.locator("#view-compare .primary").click()
    for column in range(2):
        expect(page.locator("#view-compare .mean").nth(column)).to_contain_text("30 characters")


def test_sessions_are_labelled_replayed_and_deleted(page):
    """The list shows labels as text; replay ticks every character; a deleted session leaves the page empty."""
    write(page, "To be", 20)
    name = session(page)
    page.click("#open-sessions")
    page.get_by_label(f"Label {name}").click()
    expect(page.locator("#sessions .label", has_text="note: <b>mine</b>").first).to_be_visible()
    page.locator("#sessions button", has_text="Replay").click()
    expect(page.locator("#text i.equal")).to_have_count(25)
    page.click("#open-sessions")
    page.get_by_label(f"Delete {name}").click()
    expect(page.locator("#text i")).to_have_count(0)
    page.keyboard.press("Escape")


def test_a_session_is_saved_and_loaded(page, tmp_path):
    """The file of one session becomes another one with the same text."""
    text = write(page, "To be", 20)
    name = session(page)
    page.click("#open-sessions")
    with page.expect_download() as download:
        page.locator("#sessions button", has_text="Save").click()
    download.value.save_as(tmp_path / "saved")
    page.locator("#load-file").set_input_files(tmp_path / "saved")
    expect(page.locator("#session-name")).not_to_have_text(name)
    expect(page.locator("#text i")).to_have_count(25)
    assert shown(page) == text


def test_scripts_are_text(browser, lab):
    """HTML that somebody wrote into a session is shown and never run."""
    with opened(browser, f"{lab[1].url}/?model=bytes") as page:
        page.fill("#prompt", SCRIPT)
        page.click("#read-only")
        expect(page.locator("#text i")).to_have_count(len(SCRIPT))
        assert shown(page) == SCRIPT
        assert page.locator("#text img").count() == 0


def test_a_model_of_bytes_shows_characters(browser, lab):
    """The text is whole characters; what counts bytes says that it needs ASCII, and shows nothing that is beside it."""
    with opened(browser, f"{lab[1].url}/?model=bytes&seed=7") as page:
        page.fill("#prompt", "To \N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-65E5}")
        page.click("#read-only")
        expect(page.locator("#text i")).to_have_count(5)
        page.click("#one")
        expect(page.locator("#status")).to_have_text("ready")
        with Client(lab[0].address) as client:
            assert client.session(session(page)).transcript().text == shown(page)
        page.locator("#text i").nth(3).click()
        for panel in ("#bars", "#view-memory"):
            expect(page.locator(panel)).to_contain_text("This network reads bytes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_narrow(browser, lab, scheme):
    """No serious finding of axe, in both themes; at 360 pixels nothing is wider than the screen."""
    with opened(browser, f"{lab[1].url}/?model=lstm&seed=7", color_scheme=scheme, bypass_csp=True) as page:
        write(page, "To be", 30)
        page.locator("#text i").nth(9).click()
        expect(page.locator("#bars th").nth(1)).to_have_text("logit")
        for tab in ("memory", "compare"):
            page.click(f"#tab-{tab}")
            found = Axe().run(page).response["violations"]
            assert [
                (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in {"serious", "critical"}
            ] == []
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_two_tabs_do_not_corrupt_a_session(browser, page, lab):
    """A second tab is told that the session is busy, and catches up when it is looked at."""
    write(page, "To be", 5)
    page.fill("#count", "3000")
    page.locator("#speed").fill("8")
    with opened(browser, page.url, may_lose_server=True) as other:
        page.click("#go")
        expect(page.locator("#text i").nth(14)).to_be_visible()
        other.click("#one")
        expect(other.locator("#notice")).to_contain_text("Another tab or program")
        page.click("#stop")
        expect(page.locator("#status")).to_have_text("ready")
        other.evaluate("dispatchEvent(new Event('focus'))")
        expect(other.locator("#text i")).to_have_count(page.locator("#text i").count())
    with Client(lab[0].address) as client:
        assert client.session(session(page)).transcript().text == shown(page)


def test_the_text_continues_after_the_server_was_killed(browser, lstm, tmp_path):
    """Kill -9 under a page that writes: it says so, and continues by itself when the server is back."""
    store = ["--store", f"sqlite:{tmp_path / 'sessions.db'}"]
    with (
        ServerProcess(lstm, *store) as server,
        WebProcess(server.address) as web,
        opened(browser, f"{web.url}/?model=lstm&seed=7", may_lose_server=True) as page,
    ):
        page.fill("#count", "100000")
        page.locator("#speed").fill("17")
        page.fill("#prompt", "A")
        page.click("#go")
        expect(page.locator("#text i").nth(20)).to_be_visible()
        server.kill()
        expect(page.locator("#status")).to_have_text(re.compile("server lost"), timeout=60_000)
        before = shown(page)
        with ServerProcess(lstm, *store, "--listen", server.address) as again:
            expect(page.locator("#text i").nth(len(before) + 20)).to_be_visible()
            page.click("#stop")
            expect(page.locator("#status")).to_have_text("ready")
            with Client(again.address) as client:
                assert client.session(session(page)).transcript().text == shown(page)
                expected = "".join(client.generate("A", model="lstm", seed=7, max_chars=len(shown(page)) - 1))
            assert shown(page) == f"A{expected}"


def test_a_key_is_asked_for(browser, lstm, tmp_path):
    """A server that asks who calls: the door passes the answer and the caller's token on, the page asks for one."""
    token = "secret-of-alice"
    access = tmp_path / "access.toml"
    access.write_text(f'[principals.alice]\ntokens = ["{hashlib.sha256(token.encode()).hexdigest()}"]\n')
    with (
        ServerProcess(lstm, "--access", str(access), "--reflection", "off") as server,
        WebProcess(server.address) as web,
        httpx2.Client(base_url=web.url, trust_env=False, timeout=PATIENCE) as http,
    ):
        refused = http.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        assert http.get("/v1/models", headers={"authorization": f"Bearer {token}"}).status_code == 200
        with opened(browser, web.url, may_lose_server=True) as page:
            page.fill("#key-value", token)
            page.keyboard.press("Enter")
            expect(page.locator("#model option")).to_have_count(1)
            write(page, "To be", 5)


def test_the_bars_are_what_the_server_samples_from(page, lab):
    """Temperature and filters in the browser leave the characters, and the probabilities, that the server reports."""
    filters = {"temperature": 0.7, "top_k": 12, "top_p": 0.8, "min_p": 0.02}
    body = {"model": "lstm", "prompt": "To be", "max_tokens": 1, "seed": 3, "logprobs": 20, "effective": True}
    with httpx2.Client(base_url=lab[1].url, trust_env=False, timeout=PATIENCE) as http:
        choice = http.post("/v1/completions", json={**body, **filters}).json()["choices"][0]
        logits = http.post("/v1/inspect/explain", json={"model": "lstm", "text": "To be"}).json()["logits"]
    sampled = choice["effective"][0]
    asked = [logits, {"temperature": 0.7, "topK": 12, "topP": 0.8, "minP": 0.02}]
    found = page.evaluate("([logits, by]) => import('/softmax.js').then((m) => m.filtered(logits, by))", asked)
    left = {c: p for c, p in zip(CHARACTERS, found["probabilities"], strict=True) if p}
    assert found["isSorted"]
    assert len(left) == sampled["num_kept"] < 12
    assert left == pytest.approx({c: math.exp(p) for c, p in sampled["top"].items()}, abs=1e-5)
    page.goto(f"{page.url}&topK=12&topP=0.8&minP=0.02&temperature=0.7&seed=3")
    expect(page.locator("#status")).to_have_text("ready")
    write(page, "To be", 1)
    page.locator("#text i").nth(5).click()
    expect(page.locator("#needle-text")).to_contain_text(f"The random number was {sampled['uniform']:.4f}")
