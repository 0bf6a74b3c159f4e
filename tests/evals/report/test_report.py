"""Is the page whole, self-contained and safe, and do the tables say what the results say?"""

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.report import (
    CaseReport,
    markdown_report,
    markdown_table,
    terminal_report,
    terminal_table,
    write_report,
    write_suite_report,
)
from evals.report.ablation import ablation_sheets
from evals.result.metrics import CaseRun, summarise
from evals.result.recording import AppliedDecision
from evals.suite.arms import expand_arms
from serving.contracts import Limits
from tests.evals.samples import outcome

ARMS = ("vllm-fcfs", "fixed-edf", "hmas")
DECISIONS = [
    AppliedDecision(1.0, "slide", Limits(64, 2048), "start"),
    AppliedDecision(50.0, "edf", Limits(32, 1024), "<b>calm</b>"),
]


def outcomes(arm):
    share = 2 + ARMS.index(arm)
    return [
        outcome(i, arrival_s=float(i), met=i % share > 0, tenant="ab"[i % 2], ttft_s=0.1 + i / 100)
        for i in range(120)
    ]


def results(load=1.5):
    return [summarise(CaseRun("conv", load, arm, outcomes(arm), ()), 119.0) for arm in ARMS]


def html_of(tmp_path, by_arm=None, decisions=DECISIONS):
    path = tmp_path / "deep" / "report.html"
    by_arm = {arm: outcomes(arm) for arm in ARMS} if by_arm is None else by_arm
    write_report(path, "Title & co", "Subtitle", results(), by_arm, decisions=decisions)
    return path.read_text(encoding="utf-8")


def test_the_page_has_every_plot_as_valid_svg(tmp_path):
    html = html_of(tmp_path)
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(svgs) == 7
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
    for caption in ("Goodput", "Attainment over time", "per tenant",
                    "per SLO class", "What the controller did"):  # fmt: skip
        assert caption in html


def test_the_page_needs_no_network_and_escapes_text(tmp_path):
    html = html_of(tmp_path)
    assert re.findall(r"(?:src|href)=[\"'](?!#)(?!data:)[^\"']*", html) == []
    assert "@import" not in html
    assert "Title &amp; co" in html
    assert "<b>calm</b>" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_same_run_gives_the_same_page(tmp_path):
    assert html_of(tmp_path) == html_of(tmp_path)


@pytest.mark.parametrize("decisions", [[], DECISIONS[:1]])
def test_a_page_with_few_decisions_or_nobody_served_is_still_written(tmp_path, decisions):
    lost = [outcome(i, met=False, finish="error", ttft_s=None, tpot_s=None) for i in range(3)]
    html = html_of(tmp_path, {"vllm-fcfs": lost, "hmas": lost}, decisions)
    assert html.count("<svg") == 6 + bool(decisions)


def test_a_suite_page_has_a_section_per_case(tmp_path):
    cases = [CaseReport("conv", load, {a: outcomes(a) for a in ARMS}, ()) for load in (0.8, 1.5)]
    write_suite_report(tmp_path / "r.html", "T", "S", [*results(0.8), *results(1.5)], cases)
    html = (tmp_path / "r.html").read_text()
    assert html.count("<h2>") == 2
    assert html.count("<svg") == 2 + 2 * 5


def ablation(scenario="conv"):
    """Stock and two policies, without and with rules, at two loads; edf and slack alone."""
    met = {  # of 20 requests, at 0.8 and at 1.5
        "vllm-fcfs": (20, 5), "fixed-fcfs": (20, 5), "fixed-edf": (20, 10),
        "fixed-fcfs+rules": (19, 7), "fixed-edf+rules": (20, 16), "fixed-edf+slack": (20, 14),
    }  # fmt: skip
    return [
        summarise(
            CaseRun(scenario, load, arm, [outcome(k, met=k < good[i]) for k in range(20)], ()), 10.0
        )
        for i, load in enumerate((0.8, 1.5))
        for arm, good in met.items()
    ]


def rows(sheet):
    return {row[0]: list(row[1:]) for row in sheet.rows}


def test_the_ablation_shows_goodput_without_and_with_rules_and_over_stock():
    goodput, best, alone = ablation_sheets(ablation())
    assert rows(goodput) == {
        "stock": ["2.00 1.00x", "0.50 1.00x"],
        "fcfs": ["2.00 1.00x", "0.50 1.00x"],
        "fcfs +rules": ["1.90 0.95x", "0.70 1.40x"],
        "edf": ["2.00 1.00x", "1.00 2.00x"],
        "edf +rules": ["2.00 1.00x", "1.60 3.20x"],
    }
    assert rows(best) == {
        "without rules": ["fcfs (+1) 1.00x", "edf 2.00x"],
        "with all rules": ["edf 1.00x", "edf 3.20x"],
    }
    assert rows(alone) == {"edf +slack": ["0.0", "+20.0"], "edf +all rules": ["0.0", "+30.0"]}


def test_in_the_ablation_a_policy_with_parameters_is_one_of_its_own():
    tuned = "fixed-sjf:kappa=40"
    met = {
        "fixed-sjf": 10, "fixed-sjf+rules": 12, tuned: 14, f"{tuned}+slack": 15,
        f"{tuned}+rules": 17,
    }  # fmt: skip
    goodput, _, alone = ablation_sheets([
        summarise(
            CaseRun("conv", 0.8, arm, [outcome(k, met=k < good) for k in range(20)], ()), 10.0
        )
        for arm, good in met.items()
    ])  # fmt: skip
    assert rows(goodput) == {
        "sjf": ["1.00"], "sjf +rules": ["1.20"],
        "sjf:kappa=40": ["1.40"], "sjf:kappa=40 +rules": ["1.70"],
    }  # fmt: skip
    assert rows(alone) == {
        "sjf:kappa=40 +slack": ["+5.0"], "sjf:kappa=40 +all rules": ["+15.0"],
    }  # fmt: skip


def test_an_arm_with_a_bound_is_not_taken_for_the_plain_one():
    bounded = [
        summarise(CaseRun("conv", 0.8, arm, [outcome(k, met=k < 3) for k in range(20)], ()), 10.0)
        for arm in ("fixed-edf+active=8", "fixed-edf+rules+active=8", "fixed-edf+slack+active=8")
    ]
    for results in ([*ablation(), *bounded], [*bounded, *ablation()]):
        assert ablation_sheets(results) == ablation_sheets(ablation())


def test_names_with_parameters_are_whole_in_every_report(tmp_path):
    arms = ["fixed-slide:kappa=5+slack+serial", "fixed-sjf:kappa=40+rules"]
    some = [
        summarise(CaseRun("conv", load, arm, outcomes("hmas"), ()), 10.0)
        for load in (0.8, 1.5)
        for arm in ("vllm-fcfs", *arms)
    ]
    write_suite_report(tmp_path / "r.html", "T", "S", some, [])
    html = (tmp_path / "r.html").read_text()
    for drawn in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        ElementTree.fromstring(drawn)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_report(some))
    shown = console.export_text()
    for arm in arms:
        assert f">{arm}</td>" in html
        assert f"| {arm} |" in markdown_report(some)
        policy, rules = arm.split("+", 1)
        assert re.search(rf"^ {policy} .*\n  \+{re.escape(rules)} ", shown, flags=re.M)
    assert "…" not in shown
    assert re.search(r"\d\.\d\d/\d\.\d\d/\d\.\d\d", shown)  # figures are not broken


def test_a_policy_that_loses_below_saturation_is_named():
    assert "1 lose more than 1% to stock; the least is 0.950x (fcfs at 0.8x)" in str(
        ablation_sheets(ablation())[0].note
    )


def test_other_suites_have_no_ablation():
    assert ablation_sheets(results()) == []
    assert "Goodput without" not in markdown_report(results())


def test_ablation_and_tenants_come_out_in_markdown_html_and_terminal(tmp_path):
    both = [*ablation("conv"), *ablation("code")]
    text = markdown_report(both)
    for scenario in ("conv", "code"):
        assert f"## Goodput without and with all rules, {scenario}" in text
        assert f"## Met per tenant, {scenario}" in text
    write_suite_report(tmp_path / "r.html", "T", "S", both, [])
    html = (tmp_path / "r.html").read_text()
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(svgs) == 3 * 2  # goodput, ratios and small multiples, each per scenario
    assert sum("without rules" in svg for svg in svgs) == 2
    for svg in svgs:
        ElementTree.fromstring(svg)
    assert "What rules add, code" in html
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_report(both))
    shown = console.export_text()
    assert "Best policy, conv" in shown
    assert "…" not in shown


def test_with_more_arms_than_can_be_told_apart_every_one_is_in_the_tables(tmp_path):
    arms = expand_arms(["vllm-fcfs", "fixed-*", "fixed-fcfs+*", "hmas"])
    many = [summarise(CaseRun("conv", 1.0, arm, [outcome()], ()), 1.0) for arm in arms]
    case = CaseReport("conv", 1.0, {"hmas": [outcome()]}, ())
    write_suite_report(tmp_path / "r.html", "T", "S", many, [case])
    html = (tmp_path / "r.html").read_text()
    for arm in arms:
        assert f">{arm}</td>" in html
    assert "Attainment over time" in html


def test_preemptions_are_shown_where_there_were_any():
    runs = [
        CaseRun("kv", 1.2, arm, [outcome(preemptions=n)], (), preemptions=n, recomputed_tokens=t)
        for arm, n, t in (("vllm-fcfs", 40, 1000), ("fixed-edf", 4, 250))
    ]
    some = [summarise(run, 1.0) for run in runs]
    assert "| 1.2x | fixed-edf | 4 | 250 | 0.25x |" in markdown_report(some)
    assert "Preemptions" not in markdown_report(results())


def test_each_tenant_has_a_column():
    assert "| 1.5x | hmas | 50.0% | 100.0% |" in markdown_report(results())


def test_means_of_counts_over_seeds_stay_short():
    seeds = [
        result | {"seed": seed, "switches": seed // 3, "preemptions": seed // 3}
        for seed in (1, 2, 3)
        for result in results()
    ]
    text = markdown_report(seeds)
    assert "| 0.333 |" in text
    assert "0.3333" not in text


def test_tables_show_the_ratio_to_stock():
    text = markdown_table(results())
    rows = text.splitlines()
    assert len(rows) == 2 + len(ARMS)
    assert "| 1.00x |" in rows[2]
    assert "| 1.50x |" in rows[4]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(results()))
    shown = console.export_text()
    for expected in (*ARMS, "1.50x", "conv at 1.5x capacity", "interactive"):
        assert expected in shown
    assert "…" not in shown


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_a_phone_and_a_laptop(page, tmp_path, width):
    case = CaseReport("conv", 1.5, {arm: outcomes(arm) for arm in ARMS}, DECISIONS)
    write_suite_report(tmp_path / "r.html", "T", "S", [*results(0.8), *results(1.5)], [case])
    page.set_viewport_size({"width": width, "height": 844})
    page.goto((tmp_path / "r.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    letters = """[...document.querySelectorAll("svg text")].map((text) => {
      const to = text.getScreenCTM();
      return Math.hypot(to.a, to.b) * parseFloat(getComputedStyle(text).fontSize);
    })"""
    assert min(page.evaluate(letters)) >= 7.0, "letters can be read"
    for svg in page.locator("figure svg").all():
        assert svg.bounding_box()["width"] >= 340
    if width == 1280:
        tables = "[...document.querySelectorAll('.wide')].map((e) => e.scrollWidth - e.clientWidth)"
        assert max(page.evaluate(tables)) <= 0, "no table scrolls sideways on a laptop"


def test_at_one_load_no_ratio_is_drawn_as_a_dot(tmp_path):
    write_suite_report(tmp_path / "one.html", "T", "S", results(1.5), [])
    write_suite_report(tmp_path / "two.html", "T", "S", [*results(0.8), *results(1.5)], [])
    assert "Goodput over the baselines, conv" not in (tmp_path / "one.html").read_text()
    assert "Goodput over the baselines, conv" in (tmp_path / "two.html").read_text()
