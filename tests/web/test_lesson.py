"""The panels of the lesson and its tour in a real browser, with the models that the page brings along."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from elman_client import Client
from tests.server_process import PATIENCE, ServerProcess
from tests.services import need
from tests.web.browser import CHROMIUM, chromium, opened
from tests.web.process import WebProcess

ROOT = Path(__file__).parent.parent.parent
NEW_H, NEW_C = "h\N{PRIME}", "c\N{PRIME}"
MOVIE = "The movie was terrible, no, terribly good!"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all pages."""
    need("chromium", is_there=Path(CHROMIUM).exists())
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def lesson(tmp_path_factory) -> Iterator[tuple[ServerProcess, WebProcess]]:
    """A server of the lesson's models, as the one command writes them, and of elman-128; and its page."""
    folder: Path = tmp_path_factory.mktemp("lesson") / "models"
    subprocess.run([sys.executable, "-m", "elman_web.lesson", str(folder)], check=True, timeout=PATIENCE)
    shutil.copy(ROOT / "server/elman_server/bundled/elman-128.onnx", folder)
    with ServerProcess(folder) as server, WebProcess(server.address) as web:
        yield server, web


@pytest.fixture
def page(browser, lesson) -> Iterator[Page]:
    """A fresh page on the model `elman-128`."""
    with opened(browser, f"{lesson[1].url}/?model=elman-128&seed=7") as page:
        yield page


@pytest.fixture
def client(lesson) -> Iterator[Client]:
    """A client of the server behind the page."""
    with Client(lesson[0].address) as client:
        yield client


def numbers(view, name: str) -> list[float]:
    """Return the numbers of the first block of that name."""
    block = view.locator("figure.block").filter(has=view.page.locator(f'figcaption:text-is("{name}")')).first
    return [float(each.replace("\N{MINUS SIGN}", "-")) for each in block.locator("i").all_text_contents()]


def test_two_units_are_worked_by_hand(page):
    """The numbers of R8 appear, and a weight that is moved moves what comes after it."""
    page.click("#tab-step")
    view = page.locator("#view-step")
    page.select_option("#step-network", "two")
    expect(view.locator(".says")).to_contain_text("class 0 has 0.624")
    assert (numbers(view, NEW_H), numbers(view, "y")) == ([0.6, 0.8], [1.05, -0.1, -0.2])
    view.get_by_label("W_xh[0,0]").fill("0")
    expect(view.locator(".says")).not_to_contain_text("0.624")
    assert numbers(view, NEW_H) == [0.0, 0.8]
    assert numbers(view, "y") == [0.6, -0.4, 0.4]
    view.get_by_role("button", name="As it was").click()
    expect(view.locator(".says")).to_contain_text("class 0 has 0.624")


def test_hello_is_played_forwards_and_backwards(page):
    """Each term appears in its turn, by button and by itself; the numbers are those of docs/lesson.md."""
    page.click("#tab-step")
    view = page.locator("#view-step")
    expect(view.locator(".says")).to_contain_text("e has 0.887")
    assert numbers(view, NEW_H) == [0.762, 0.0, -0.462]
    view.get_by_label("Forward").click()
    expect(view.locator(".says")).to_contain_text("Step 2 of 5. e enters")
    assert view.locator(".later").count() > 10
    view.get_by_label("Back", exact=True).click()
    expect(view.locator(".says")).to_contain_text("Step 1 of 5. Softmax")
    expect(view.locator(".later")).to_have_count(0)
    page.clock.install()
    view.get_by_role("button", name="Play").click()
    for _ in range(20):
        page.clock.run_for(1000)
    expect(view.locator(".says")).to_contain_text(re.compile("Step 5 of 5. Softmax .* o has 0.780"))
    expect(view.get_by_role("button", name="Play")).to_be_visible()


def test_the_terms_of_a_served_network_are_the_servers(page, client):
    """Matrices of elman-128 in cells, a word typed; the gates of an LSTM and the chosen character of a session."""
    page.click("#tab-step")
    view = page.locator("#view-step")
    page.select_option("#step-network", "elman-128")
    expect(view.get_by_role("img", name=re.compile("^W_hh, 128 by 128"))).to_be_visible()
    expect(view.get_by_role("img", name=re.compile("^W_hy, 65 by 128"))).to_be_visible()
    page.fill("#step-word", "ROMEO")
    page.locator("#step-word").blur()
    expect(view.locator(".says")).to_contain_text("Step 5 of 5")
    step = client.explain("ROMEO", model="elman-128", num_candidates=1)
    expect(view.locator("tbody tr").first).to_contain_text(f"{step.candidates[0].probability:.3f}")
    page.select_option("#step-network", "counting")
    page.fill("#step-word", "aab")
    page.locator("#step-word").blur()
    expect(view.get_by_role("group", name="Gate f")).to_be_visible()
    step = client.explain("aab", model="counting")
    assert np.allclose(numbers(view, NEW_C), step.layers[0].c, atol=5.1e-4)


def test_what_is_forgotten_is_shaded(page, client):
    """The loss of a character after a later beginning, as the server scores it; the text above takes the colours."""
    text = "\nFirst Citizen:\nYou are all resolved rather to die than to famish?\n"
    page.fill("#prompt", text)
    page.click("#read-only")
    expect(page.locator("#text i")).to_have_count(len(text))
    page.locator("#text i").nth(51).click()
    page.click("#tab-reach")
    view = page.locator("#view-reach")
    view.get_by_role("button", name="Measure").click()
    expect(view.locator(".passages .card")).to_have_count(1)

    def loss(start: int) -> float:
        scored = client.score(text[start:52], model="elman-128")
        return -float(scored.details[-1].log_probability or 0)

    shaded = view.locator(".passages i").nth(49)
    expect(shaded).to_have_attribute("title", re.compile(f"by {loss(50) - loss(49):.2f}".replace("-0.00", "-?0.00")))
    expect(view.locator(".passages h3")).to_contain_text(f"{loss(0):.2f} nats")
    expect(page.locator("#colour")).to_have_value("memory")
    expect(page.locator("#text i").nth(49)).to_have_attribute("style", re.compile("rgba"))
    view.locator(".passages i").nth(45).click()
    expect(view.locator(".passages i.chosen")).to_have_text(text[45])


def test_the_meaning_moves_as_it_is_read(page, client):
    """Labels stand below whole words only; the end is the server's, and typing changes it."""
    page.click("#tab-meaning")
    view = page.locator("#view-meaning")
    page.select_option("#read-out", label="sentiment (phrases)")
    page.fill("#meaning-text", MOVIE)
    scored = client.score(MOVIE, model="phrases", read_out="sentiment")
    best = max(scored.details[-1].labels, key=lambda label: label.log_probability)
    assert best.label == "positive"
    expect(view.locator("[role=status]")).to_contain_text(f"positive with {100 * np.exp(best.log_probability):.1f} %")
    labels = view.locator(".strip .label")
    expect(labels.filter(has_text="negative")).to_have_count(1)
    num_shown = view.locator(".strip circle").count()
    within = sum(a.isalpha() and b.isalpha() for a, b in pairwise(MOVIE))
    assert num_shown == 3 * (len(MOVIE) - within)
    view.get_by_label("within words too").check()
    expect(view.locator(".strip circle")).to_have_count(3 * len(MOVIE))
    page.fill("#meaning-text", "The movie was terribl")
    expect(view.locator("[role=status]")).to_contain_text("if the word ends here")


def test_words_and_quotations_are_labelled(page):
    """DET, NOUN and VERB below "The cat sat"; a network of labels has one at every character."""
    page.click("#tab-meaning")
    labels = page.locator("#view-meaning .strip .label")
    page.select_option("#read-out", label="tags (sentences)")
    page.fill("#meaning-text", "The cat sat.")
    expect(labels).to_have_text(["DET", "NOUN", "VERB"])
    page.fill("#meaning-text", "The old play")
    expect(labels).to_have_text(["DET", "ADJ", "NOUN"])
    page.select_option("#read-out", label="quotes (a network of labels)")
    page.fill("#meaning-text", 'Then "never" again')
    expect(page.locator("#view-meaning .strip .label")).to_contain_text(["plain", "quoted", "plain"])


def test_a_read_out_of_ones_own_is_fitted(page):
    """Phrases are marked by selecting them; the fit says how it does on phrases that it was not fitted to."""
    page.click("#tab-meaning")
    page.select_option("#read-out", "own")
    view = page.locator("#view-meaning")
    area = view.get_by_label("Text to mark")
    area.evaluate("area => area.setSelectionRange(0, 6)")
    view.get_by_role("button", name="Unmark ROMEO:").first.click()
    expect(view.locator("ul.chips li")).to_have_count(8)
    area.evaluate("area => area.setSelectionRange(0, 6)")
    view.get_by_role("button", name="Mark the selection").click()
    expect(view.locator("ul.chips li").first).to_contain_text("name ROMEO:")
    view.get_by_role("button", name="Fit", exact=True).click()
    found = re.search(r"labels (\d+) % .* right for (\d+) %", view.locator("[role=status]").text_content() or "")
    assert found
    assert int(found[1]) > int(found[2])
    expect(view.locator(".strip .label").filter(has_text="name").first).to_be_visible()


def test_the_counter_rises_and_falls_until_it_fails(page):
    """The line of n ends where it should within the training's lengths; the scan finds the first n that fails."""
    page.click("#tab-programs")
    view = page.locator("#view-programs")
    expect(view.locator("h3").first).to_contain_text("after exactly 8 b's")
    expect(view.locator(".legend").first).to_contain_text("the counter, ")
    view.get_by_role("button", name=re.compile("How far")).click()
    expect(view.locator(".chart")).to_have_count(1)
    expect(view.locator("h3").last).to_contain_text(re.compile(r"right up to (1[0-9]|[2-4][0-9])"))
    page.locator("#program-n").fill("12")
    expect(view.locator("h3").first).to_contain_text("n = 12: the line should end after exactly 12 b's")


def test_every_card_asks_before_it_answers(page):
    """Thirteen cards: each can be shown, none answers before the guess, each proves its answer on the page."""
    page.click("#open-tour")
    tour = page.locator("#tour")
    for card in range(1, 14):
        expect(tour).to_contain_text(f"{card} of 13")
        assert f"card={card}" in page.url
        expect(tour.locator(".answer")).to_be_hidden()
        tour.get_by_role("button", name="Show me").click()
        tour.locator("fieldset button").first.click()
        expect(tour.locator(".answer")).to_contain_text(re.compile("^(Yes|No: )"))
        if card == 4:
            expect(page.locator("#temperature-shown")).to_have_text("2.00")
            expect(tour.locator(".extra")).to_contain_text("0.502")
        if card == 7:
            expect(page.locator("#text i")).to_have_count(4)
            expect(tour.locator(".answer p")).to_have_count(2)
        if card == 10:
            expect(page.locator("#view-meaning [role=status]")).to_contain_text("positive with")
        if card < 13:
            tour.get_by_role("button", name="Next").click()
    expect(page.locator("#view-reach .passages .card")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(tour).to_be_hidden()
    expect(page.locator("#open-tour")).to_be_focused()
    assert "card" not in page.url


def test_the_lesson_is_accessible_and_narrow(browser, lesson):
    """No serious finding of axe in any panel or card; at 360 pixels nothing is wider than the screen."""
    options: dict[str, Any] = {"bypass_csp": True, "reduced_motion": "reduce", "color_scheme": "dark"}
    with opened(browser, f"{lesson[1].url}/?model=elman-128&card=3", **options) as page:
        for tab, seen in {"step": "figure", "reach": ".primary", "meaning": ".strip", "programs": ".strip"}.items():
            page.click(f"#tab-{tab}")
            for _theme in range(2 if tab == "step" else 1):  # most colours are there
                expect(page.locator(f"#view-{tab} {seen}").first).to_be_visible()
                found = Axe().run(page, context=[f"#view-{tab}", "#tour"]).response["violations"]
                serious = [each for each in found if each["impact"] in {"serious", "critical"}]
                assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
                page.click("#theme")
            page.set_viewport_size({"width": 360, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.set_viewport_size({"width": 1280, "height": 800})


def test_without_its_models_the_page_says_how_to_get_them(browser, web):
    """A server without read-outs and counter: panels and cards name the one command."""
    with opened(browser, f"{web.url}/?model=lstm&tab=programs") as page:
        expect(page.locator("#view-programs")).to_contain_text("python -m elman_web.lesson models")
        page.click("#tab-meaning")
        expect(page.locator("#view-meaning")).to_contain_text("python -m elman_web.lesson models")
        page.goto(f"{web.url}/?card=12")
        page.locator("#tour").get_by_role("button", name="Show me").click()
        expect(page.locator("#tour")).to_contain_text("This server does not have counting")
