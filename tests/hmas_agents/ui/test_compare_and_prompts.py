"""Two runs side by side, and the prompt editor, in a real browser."""

import pytest
from playwright.sync_api import expect

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger
from prompts.loader import labels, load_prompt, versions
from tests.hmas_agents.samples import outcome
from tests.hmas_agents.ui.written_ledger import START_S


def test_a_short_run_is_drawn_on_the_scales_of_a_long_one(serve, page, written, tmp_path):
    ledger = Ledger(tmp_path / "short.sqlite", config=Config())
    ledger.record_outcomes([outcome(i, START_S + i) for i in range(30)])
    ledger.close()
    page.goto(f"{serve(written, ledger.path)}#/compare/0-1/1-1")
    expect(page.locator("svg.timeline")).to_have_count(2)
    axes = [
        [text.text_content() for text in chart.locator(".axis text, .grid text").all()]
        for chart in page.locator("svg.timeline").all()
    ]
    assert axes[0] == axes[1]
    assert {"5:00", "8"} <= set(axes[1])  # of the long run: its length, its requests/s


def test_a_tenant_is_the_same_line_on_both_sides(serve, page, written, tmp_path):
    ledger = Ledger(tmp_path / "few.sqlite", config=Config())
    ledger.record_outcomes([outcome(i, START_S + i, tenant="globex") for i in range(30)])
    ledger.record_outcomes([outcome(40, START_S, tenant="new"), outcome(41, START_S)])
    ledger.close()
    page.goto(f"{serve(written, ledger.path)}#/compare/0-1/1-1")
    keys = page.locator(".legend > span")
    expect(keys).to_have_count(5)
    classes = {
        key.locator("bdi").text_content(): key.locator("i").get_attribute("class").split()[1]
        for key in keys.all()
    }
    page.locator(".area").nth(1).focus()
    page.keyboard.press("ArrowRight")
    read = page.locator("#tip .readout")
    expect(read.locator("bdi")).to_have_text(["overall", "globex", "acme", "new"])
    lines = [line.get_attribute("class").split()[1] for line in read.locator("i").all()]
    assert lines == [classes[name] for name in ("overall", "globex", "acme", "new")]


def test_two_runs_are_compared_side_by_side(serve, page, written):
    page.goto(f"{serve(written)}#/compare/0-1/0-2")
    charts = page.locator("svg.timeline")
    expect(charts).to_have_count(2)
    # In one step: a chart that is drawn again replaces its nodes.
    placed = "charts => charts.map((chart) => chart.getBoundingClientRect().toJSON())"
    left, right = charts.evaluate_all(placed)
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    page.set_viewport_size({"width": 800, "height": 800})
    # The charts are drawn anew for the new width, at a moment of the browser's choice.
    page.wait_for_function(
        """() => {
            const charts = [...document.querySelectorAll("svg.timeline")];
            const boxes = charts.map((chart) => chart.getBoundingClientRect());
            return boxes.length === 2 && boxes[0].bottom < boxes[1].top;
        }"""
    )
    expect(page.locator(".mark.switch")).to_have_count(2)
    expect(page.locator(".mark.advised")).to_have_count(4)
    row = page.get_by_role("row", name="attainment 63.5%")
    expect(row).to_contain_text("38.7%")
    expect(row).to_contain_text("−24.8% worse")
    expect(page.get_by_role("row", name="policy switches 2 0 −2")).to_be_visible()
    expect(page.get_by_role("row", name="globex")).to_contain_text("worse")
    expect(page.get_by_role("row", name="control.mode act advise")).to_be_visible()


def test_another_run_can_be_picked_on_either_side(serve, page, written):
    page.goto(f"{serve(written)}#/compare/0-1/0-2")
    page.get_by_role("combobox").nth(1).select_option("0-1")
    expect(page.locator(".sides h2")).to_have_text(["A: evening act", "B: evening act"])
    expect(page.get_by_role("row", name="attainment 63.5%")).to_contain_text("same")
    expect(page.locator(".tables")).to_contain_text("None: both runs had the same configuration.")


def test_an_edit_becomes_a_new_version_and_gets_a_label(serve, page, written, prompts_root):
    before = load_prompt("policy", "current", prompts_root)
    newest = versions("policy", prompts_root)[-1]
    page.goto(f"{serve(written)}#/prompts/policy/{before.head.version}")
    save = page.get_by_role("button", name="Save as a new version")
    check = page.locator(".check")
    expect(check).to_contain_text("✓ holds together")
    expect(check).to_contain_text("token")
    expect(save).to_be_disabled()
    text = page.locator("#prompt").input_value()
    page.locator("#prompt").fill(text.replace("## user\n", "## user\nThink of the worst tenant.\n"))
    expect(check.locator(".diff .added")).to_have_text("+Think of the worst tenant.")
    check.get_by_text("As the model would get it").click()
    expect(check.get_by_role("region", name="Sample, user")).to_contain_text("worst tenant")
    save.click()
    expect(page.locator(".told")).to_contain_text(f"✓ Saved as policy v{newest + 1}")
    saved = load_prompt("policy", newest + 1, prompts_root)
    assert saved.user == f"Think of the worst tenant.\n{before.user}"
    assert load_prompt("policy", "current", prompts_root) == before
    page.get_by_role("button", name="Set label").click()
    expect(page.locator(".told")).to_contain_text(f"candidate now means v{newest + 1}")
    expect(page.locator(".versions a[aria-current]")).to_contain_text("candidate")
    assert labels(prompts_root)["policy"]["candidate"] == newest + 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("$summary", "$sumary", "$sumary: not among the front matter's variables"),
        ("schema_version: 1", "schema_version: 99", "schema_version"),
    ],
)
def test_a_broken_edit_is_told_while_typing_and_cannot_be_saved(
    serve, page, written, prompts_root, old, new, problem
):
    page.goto(f"{serve(written)}#/prompts/policy/1")
    expect(page.locator(".check")).to_contain_text("✓ holds together")
    text = page.locator("#prompt").input_value()
    assert old in text
    page.locator("#prompt").fill(text.replace(old, new))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(problem)
    expect(alert).not_to_contain_text(str(prompts_root))
    expect(page.get_by_role("button", name="Save as a new version")).to_be_disabled()
    page.get_by_role("button", name="Undo edits").click()
    expect(alert).to_have_count(0)
    expect(page.locator(".check")).to_contain_text("✓ holds together")


def test_an_unsaved_edit_survives_a_look_at_another_view(serve, page, written):
    page.goto(f"{serve(written)}#/prompts/policy/1")
    expect(page.locator(".check")).to_contain_text("✓ holds together")
    page.locator("#prompt").press("End")
    page.locator("#prompt").press_sequentially("Mine. ")
    edited = page.locator("#prompt").input_value()
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".sides")).to_be_visible()
    page.get_by_role("link", name="Prompts").click()
    expect(page.locator("#prompt")).to_have_value(edited)
