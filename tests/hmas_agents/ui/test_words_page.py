"""Words in the page, in a real browser: understood, asked about, approved, taken back; a lane."""

import dataclasses

import pytest
from playwright.sync_api import expect

from graphs import dialogue
from graphs.tell_routes import TellRoutes
from hmas_agents.config import Config
from hmas_agents.intent.told import ToldStore, told_path
from hmas_agents.ledger import Ledger
from hmas_agents.records import ToolCall
from tests.graphs.fake_loop import FORECAST, engine_of_words, looking, words_config
from tests.hmas_agents.samples import outcome, record
from tests.hmas_agents.ui.written_ledger import SCRIPT, START_S


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(dialogue, "foresee", lambda *_: FORECAST)
    return engine_of_words(monkeypatch)


@pytest.fixture
def settings(tmp_path):
    return words_config(tmp_path)


@pytest.fixture
def loop(engine, settings):
    loop = looking(engine, settings.ledger.path)
    yield loop
    loop.loop.close()


@pytest.fixture
def words(serve, page, settings, loop):
    """The page, where words are said."""
    page.goto(f"{serve(settings.ledger.path, more=TellRoutes(settings).routes())}#/words")
    expect(page.get_by_text("Nothing is in force by words.")).to_be_visible()
    return page


def say(page, text):
    page.locator("#words").fill(text)
    page.get_by_role("button", name="See what it means").click()


def told(settings):
    with ToldStore(told_path(settings.ledger.path)) as store:
        return store.texts(9)


def test_words_are_previewed_approved_and_taken_back(words, settings, loop):
    say(words, "expect 4x traffic from a until 02:00")
    expect(words.get_by_role("row", name="expect a 4x requests until 02:00")).to_be_visible()
    expect(words.get_by_role("row", name="a 71.0% 93.0% ±1.0")).to_be_visible()
    expect(words.locator("#words")).to_have_value("")
    assert told(settings)[0].state == "waiting"
    words.get_by_role("button", name="Apply").click()
    expect(words.locator(".told")).to_contain_text("no controller has taken it up yet")
    loop.short(62.0)
    words.reload()
    entry = words.get_by_role("listitem")
    expect(entry).to_contain_text("expect a 4x requests from 00:01 until 02:00 in force")
    entry.get_by_role("button", name="Take back").click()
    expect(words.locator(".told")).to_contain_text("✓ 1 is taken back")
    expect(words.get_by_text("Nothing is in force by words.")).to_be_visible()
    assert told(settings)[0].revoked_s is not None


def test_a_question_is_answered_a_preview_edited_and_declined(words, settings):
    say(words, "make it better")
    expect(words.get_by_text("Whom is it about")).to_be_visible()
    words.locator("#again").fill("expect 4x traffic from a")
    words.get_by_role("button", name="See what it means").nth(1).click()
    expect(words.get_by_role("row", name="4x requests")).to_be_visible()
    words.get_by_role("button", name="Edit").click()
    expect(words.locator("#again")).to_be_focused()
    words.locator("#again").fill("expect 2x traffic from a")
    words.get_by_role("button", name="See what it means").nth(1).click()
    expect(words.get_by_role("row", name="2x requests")).to_be_visible()
    words.reload()
    words.get_by_role("button", name="Go on").click()
    words.get_by_role("button", name="Decline").click()
    expect(words.locator(".told")).to_have_text("Nothing was changed: declined")
    expect(words.get_by_role("button", name="Apply")).to_have_count(0)
    assert [each.state for each in told(settings)] == ["declined"]


def test_hostile_words_stay_text(words, settings):
    say(words, f"{SCRIPT}\u202e")
    expect(words.get_by_role("listitem")).to_contain_text(f"{SCRIPT}⟨U+202E⟩")
    assert words.locator("main script, main img").count() == 0
    assert "stolen" not in words.title()


def test_a_page_that_cannot_tell_says_why(serve, page, settings):
    routes = TellRoutes(settings, problem="several ledgers are shown").routes()
    page.goto(f"{serve(settings.ledger.path, more=routes)}#/words")
    expect(page.get_by_text("several ledgers are shown")).to_be_visible()
    expect(page.get_by_role("button", name="See what it means")).to_be_disabled()


def test_what_was_told_has_a_lane(serve, page, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    ledger.record_outcomes([outcome(i, START_S + i) for i in range(100)])
    said = ToolCall("tell", {"told": 1, "text": f"acme launches {SCRIPT}", "changes": []}, True, "")
    base = record(horizon="short", at_s=START_S + 10, trigger="person,tell", tool_calls=[said])
    ledger.record_decision(base)
    change = "expect acme 3x requests from 14:00 until 18:00"
    for at_s, state, number in ((20, "in force", 1), (40, "in force", 2), (80, "ended", 1)):
        call = ToolCall("told", {"told": number, "changes": [f"{state}: {change}"]}, True, "")
        ledger.record_decision(dataclasses.replace(base, at_s=START_S + at_s, tool_calls=[call]))
    ledger.close()
    page.goto(f"{serve(ledger.path)}#/run/0-1")
    bars = page.locator(".mark.words")
    expect(bars).to_have_count(2)
    first, second = (bar.get_attribute("aria-label") for bar in bars.all())
    assert first == f"told 1: acme launches {SCRIPT}, {change}, in force 0:20 to 1:20"
    assert second == f"told 2: {change}, in force 0:40 to 1:40"
    # In one step: a chart that is drawn again replaces its bars.
    tops = bars.evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().top)")
    assert tops[0] != tops[1], "what overlaps is in rows of its own"
    bars.first.focus()
    expect(page.locator("#tip")).to_contain_text("acme launches")
    page.keyboard.press("Enter")
    expect(page.locator(".detail h2")).to_have_text("Decision 2")
