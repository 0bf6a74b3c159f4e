"""The page of a run, in a real browser: its timeline, its decisions, live and by keyboard."""

import re

import pytest
from playwright.sync_api import expect

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger, LedgerReader
from tests.hmas_agents.samples import outcome
from tests.hmas_agents.ui.written_ledger import (
    HOSTILE_TENANT,
    LONG_TEXT,
    SCRIPT,
    START_S,
    keep,
    short,
    switch,
)


def test_every_change_has_a_mark_that_says_which(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1")
    expect(page).to_have_url(re.compile(r"^http://127.0.0.1:[0-9]+/#/run/0-1$"))  # no token
    marks = page.locator(".mark:not(.alarm)")
    expect(marks).to_have_count(4)
    told = [mark.get_attribute("aria-label") for mark in marks.all()]
    assert told == [
        "policy switch at 0:00: fcfs > edf",
        "policy switch at 2:00: edf > slide",
        "limit change at 0:40: token_budget 2048 > 1536",
        "limit change at 4:00: token_budget 1536 > 2048",
    ]
    alarms = [mark.get_attribute("aria-label") for mark in page.locator(".mark.alarm").all()]
    assert alarms == ["drift alarm rate_up, 1:00 to 3:00", "drift alarm mix, 2:00 to 3:00"]
    page.locator(".mark.switch").nth(1).hover()
    expect(page.locator("#tip")).to_contain_text("edf > slide")
    expect(page.locator(".policy text")).to_have_text(["edf · epochs 1–2", "slide · epochs 3–4"])


def test_there_is_a_line_for_all_and_for_each_tenant(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1")
    expect(page.locator(".line path")).to_have_count(9)  # twice four, and what was offered
    page.get_by_role("button", name="globex").press("Enter")
    expect(page.locator(".line path")).to_have_count(7)
    expect(page.get_by_role("button", name="globex")).to_be_focused()
    page.get_by_text("Figures as a table").click()
    expect(page.locator(".figures tbody tr")).to_have_count(60)
    expect(page.locator(".figures tbody tr").first).to_contain_text("73.3%")


def test_the_keyboard_opens_a_decision_and_comes_back(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1")
    expect(page.locator(".decisions tbody tr")).to_have_count(8)
    page.get_by_label("which decisions").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="#8 keep slide")).to_be_focused()
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    row = page.get_by_role("link", name="#4 edf > slide")
    expect(row).to_be_focused()
    page.keyboard.press("Enter")
    detail = page.get_by_role("region", name="Decision", exact=True)
    expect(detail).to_be_focused()
    expect(detail.get_by_role("heading", level=2)).to_have_text("Decision 4")
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(row).to_be_focused()


def test_marks_are_reached_and_opened_by_keyboard(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1")
    page.locator(".mark.switch").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".mark.switch").nth(1)).to_be_focused()
    expect(page.locator("#tip")).to_contain_text("edf > slide")
    page.keyboard.press("Enter")
    expect(page.locator(".detail h2")).to_have_text("Decision 4")


def test_a_decision_opened_while_the_list_still_loads_stays_open(serve, page, written):
    held = []

    def hold(route):
        held.append(route)

    page.route("**/api/runs/0-1/decisions?**", hold, times=1)
    page.goto(f"{serve(written)}#/run/0-1")
    page.locator(".mark.switch").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/run/0-1/decision/0-4$"))
    page.wait_for_timeout(300)  # what a page does that does not wait for the list, it does now
    held[0].continue_()
    expect(page.get_by_role("link", name="#2 token_budget 2048 > 1536")).to_be_visible()
    expect(page.locator(".detail h2")).to_have_text("Decision 4")


def test_an_open_decision_tells_the_whole_story(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1/decision/0-4")
    detail = page.locator(".detail")
    for words in (
        "Realised 80.0%: inside the predicted interval 75.0% to 86.0%.",
        "240 requests in the window after it",
        "the twin tried 257 settings in 560 forecasts of 60 s, in 0.6 s",
        "slide:kappa=40 (instead of edf, from model)",
        "predicted 81.0% against 54.0%",
        "✓ acknowledged by the engine, epoch 3",
        "model_timeout: no reply within 20 s",
        "81.0% (75.0%–86.0%)",
        "not allowed",
        "54.0% (49.0%–60.0%)",
        "edf → slide",
        "You choose the scheduling policy.",
        '{"proposals": [{"policy": "slide"}]}',
        "Load: overload.",
        "612",
    ):
        expect(detail).to_contain_text(words)
    expect(detail.get_by_role("region", name="Prompt, system")).to_be_visible()
    expect(detail.get_by_role("region", name="Raw reply 1")).to_be_visible()
    detail.get_by_role("link", name="newer ›").click()
    expect(detail).to_contain_text("Realised 61.0%: below the predicted interval")


def test_hostile_text_stays_text(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1/decision/0-6")
    detail = page.locator(".detail")
    expect(detail.get_by_role("region", name="Raw reply 1")).to_contain_text(SCRIPT)
    expect(detail.get_by_role("region", name="Raw reply 1")).to_contain_text("⟨U+202E⟩all work")
    expect(detail.get_by_role("region", name="Prompt, user")).to_contain_text(LONG_TEXT.strip())
    expect(page.locator(".legend")).to_contain_text(HOSTILE_TENANT[:60])
    assert page.locator("main script, main img").count() == 0
    assert "stolen" not in page.title()
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "a long name must not widen the page"


def test_decisions_are_filtered(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-1")
    rows = page.locator(".decisions tbody tr")
    expect(rows).to_have_count(8)
    page.get_by_label("horizon").select_option("long")
    expect(rows).to_have_count(5)
    page.get_by_label("which decisions").select_option("changed")
    expect(rows).to_have_count(1)
    page.get_by_label("horizon").select_option("")
    expect(rows).to_have_count(4)
    page.get_by_label("which decisions").select_option("faults")
    expect(rows).to_have_count(2)


def test_new_rows_appear_without_a_reload(serve, page, tmp_path):
    path = tmp_path / "ledger.sqlite"
    url = serve(path)
    page.goto(url)
    expect(page.locator("main")).to_contain_text("Waiting for the first run")
    expect(page.locator("#status")).to_contain_text(f"waiting for {path}")
    page.evaluate("window.sameDocument = true")
    ledger = Ledger(path, label="just begun", config=Config())
    ledger.record_decision(short(0.0, 0, switch("fcfs", "edf", 0, True), "act", "start"))
    ledger.record_outcomes([outcome(1, START_S + 1)])
    rows = page.locator(".decisions tbody tr")
    expect(rows).to_have_count(1)
    expect(page.locator("#status")).to_contain_text("● live")
    row = page.get_by_role("link", name="#1 fcfs > edf")
    row.focus()
    number = ledger.record_decision(keep(60.0, 1, "act", "edf", predicted=0.7))
    expect(rows).to_have_count(2)
    expect(row).to_be_focused()
    page.get_by_role("link", name="#2 keep edf").click()
    expect(page.locator(".verdict")).to_contain_text("not known yet")
    ledger.set_realised(number, 0.66, 40)
    expect(rows.first).to_contain_text("66.0%")
    expect(page.locator(".verdict")).to_contain_text("Realised 66.0%")
    ledger.close()
    assert page.evaluate("window.sameDocument")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(serve, page, written, scheme):
    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    colours = {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 23, 27)"}
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{serve(written)}#/run/0-1")
    assert background() == colours[scheme]
    button = page.locator("#theme")
    button.click()
    expect(button).to_have_accessible_name("Theme: light")
    assert background() == colours["light"]
    button.click()
    page.reload()
    expect(button).to_have_accessible_name("Theme: dark")
    assert background() == colours["dark"]


WIDTHS = (390, 768, 1280)  # a phone, a tablet, a laptop
# Neighbours of one line whose texts are drawn over each other; and texts broken letter by letter.
OVERPRINTED = """() => {
  const drawn = [...document.querySelectorAll("tr")].filter((row) => row.checkVisibility());
  const wrong = [];
  for (const row of drawn) {
    const shown = (cell) => cell.checkVisibility() && cell.textContent.trim();
    const cells = [...row.children].filter(shown);
    cells.forEach((cell, i) => {
      const text = cell.textContent;
      const box = cell.getBoundingClientRect(), next = cells[i + 1]?.getBoundingClientRect();
      if (next && next.top < box.bottom - 1 && next.left < box.right - 1)
        wrong.push(`${text} is overprinted`);
      const spills = cell.scrollWidth > cell.clientWidth + 1;
      if (spills && getComputedStyle(cell).overflow === "visible")
        wrong.push(`${text} leaves its cell`);
      if (text.length > 9 && box.width < 60) wrong.push(`${text} is ${box.width} px wide`);
    });
  }
  return wrong;
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "place", ["run/0-1", "run/0-2", "run/0-1/decision/0-4", "run/0-1/decision/0-6"]
)
def test_rows_stand_beside_each_other_and_words_stay_whole(serve, page, written, width, place):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{serve(written)}#/{place}")
    shown = ".detail h2" if "decision" in place else ".decisions tbody tr"
    expect(page.locator(shown).first).to_be_visible()
    assert page.evaluate(OVERPRINTED) == []
    for name in ("Run", "Compare", "Prompts"):
        box = page.get_by_role("link", name=name, exact=True).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] < 45, "a link of the header has one line"
    theme = page.locator("#theme").bounding_box()
    assert theme["x"] + theme["width"] <= width


def test_on_a_phone_an_opened_decision_begins_below_the_header(serve, page, written):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{serve(written)}#/run/0-1")
    page.get_by_role("link", name="#1 ").click()
    heading = page.get_by_role("heading", name="Decision 1", exact=True)
    expect(heading).to_be_in_viewport()
    assert heading.bounding_box()["y"] > page.locator("header.top").bounding_box()["height"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "place", ["run/0-1", "run/0-1/decision/0-6", "compare/0-1/0-2", "prompts/policy/1"]
)
def test_nothing_is_cut_off(serve, page, written, width, place):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{serve(written)}#/{place}")
    expect(page.locator("svg.timeline, textarea").first).to_be_attached()
    expect(page.locator(".problem")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_simulated_run_shows_its_switches(serve, page, tmp_path):
    from graphs.control_loop import ControlLoop
    from hmas_agents.config import load_config
    from serving.contracts.settings import EngineSettings
    from serving.engines.simulated import SimulatedEngine
    from tests.graphs.test_simulated_loop import PROFILE, workload

    path = tmp_path / "ledger.sqlite"
    settings = {"control.mode": "act", "control.start_policy": "edf", "control.min_dwell_s": 0.0}
    config = load_config(None, {**settings, "model.enabled": False, "twin.enabled": False})
    engine = SimulatedEngine(PROFILE, EngineSettings())
    with ControlLoop(engine, config, path, run_label="simulated") as loop:
        loop.short_tick()
        engine.run(workload(300, 22.0), ((1.0, loop.short_tick), (5.0, loop.long_tick)))
    with LedgerReader(path) as reader:
        calls = [c for d in reader.list_decisions() for c in d.record.tool_calls if c.accepted]
    switches = [c for c in calls if c.before["policy"] != c.after["policy"]]
    assert switches
    page.goto(serve(path))
    expect(page.locator(".mark.switch")).to_have_count(len(switches))
    expect(page.locator(".run-head")).to_contain_text("300")
    expect(page.locator(".run-head")).to_contain_text("0.0 s of virtual time")


def test_advice_is_marked_as_advice(serve, page, written):
    page.goto(f"{serve(written)}#/run/0-2")
    expect(page.locator(".mark.advised")).to_have_count(4)
    expect(page.locator(".mark.switch")).to_have_count(0)
    expect(page.locator(".mark.advised").nth(2)).to_have_attribute(
        "aria-label", "advice at 2:00: slide (advised, not applied)"
    )
