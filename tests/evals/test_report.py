"""Is the page whole, self-contained and safe, and do the tables say what the results say?"""

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.metrics import CaseRun, summarise
from evals.recording import AppliedDecision
from evals.report import (
    CaseReport,
    markdown_table,
    terminal_table,
    write_report,
    write_suite_report,
)
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


def page(tmp_path, by_arm=None, decisions=DECISIONS):
    path = tmp_path / "deep" / "report.html"
    by_arm = {arm: outcomes(arm) for arm in ARMS} if by_arm is None else by_arm
    write_report(path, "Title & co", "Subtitle", results(), by_arm, decisions=decisions)
    return path.read_text(encoding="utf-8")


def test_the_page_has_every_plot_as_valid_svg(tmp_path):
    html = page(tmp_path)
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(svgs) == 7
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
    for caption in ("Goodput", "Attainment over time", "per tenant", "per SLO class", "Decisions"):
        assert caption in html


def test_the_page_needs_no_network_and_escapes_text(tmp_path):
    html = page(tmp_path)
    assert re.findall(r"(?:src|href)=[\"'](?!#)(?!data:)[^\"']*", html) == []
    assert "@import" not in html
    assert "Title &amp; co" in html
    assert "<b>calm</b>" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_same_run_gives_the_same_page(tmp_path):
    assert page(tmp_path) == page(tmp_path)


@pytest.mark.parametrize("decisions", [[], DECISIONS[:1]])
def test_a_page_with_few_decisions_or_nobody_served_is_still_written(tmp_path, decisions):
    lost = [outcome(i, met=False, finish="error", ttft_s=None, tpot_s=None) for i in range(3)]
    html = page(tmp_path, {"vllm-fcfs": lost, "hmas": lost}, decisions)
    assert html.count("<svg") == 6 + bool(decisions)


def test_a_suite_page_has_a_section_per_case(tmp_path):
    cases = [CaseReport("conv", load, {a: outcomes(a) for a in ARMS}, ()) for load in (0.8, 1.5)]
    write_suite_report(tmp_path / "r.html", "T", "S", [*results(0.8), *results(1.5)], cases)
    html = (tmp_path / "r.html").read_text()
    assert html.count("<h2>") == 2
    assert html.count("<svg") == 1 + 2 * 5


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
