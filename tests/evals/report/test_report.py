"""Is the page whole, self-contained and safe, and do tables and plots say what the results say?"""

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.report.case_section import CaseReport
from evals.report.figures import OTHERS, colours, drawn_arms, inline
from evals.report.files import report_page
from evals.report.plots import goodput_svg, ratio_svg, words_svg
from evals.report.sheet import markdown, terminal
from evals.report.summary import Summary
from evals.report.tables import case_sheets, one_load, over_loads, summary_sheets, whole_suite
from evals.result.metrics import CaseRun, summarise
from evals.result.recording import AppliedDecision
from evals.suite.arms import expand_arms
from serving.contracts import Limits
from tests.evals.load_samples import result_of, runs, summary
from tests.evals.samples import outcome

ARMS = ("vllm-fcfs", "fixed-edf", "hmas")
MANY = expand_arms(["vllm-fcfs", "fixed-*", "fixed-*+rules", "hmas"])
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
    return [summarise(CaseRun("conv", load, arm, outcomes(arm), ()), 120.0) for arm in ARMS]


def case(load=1.5, by_arm=None, decisions=DECISIONS):
    by_arm = {arm: outcomes(arm) for arm in ARMS} if by_arm is None else by_arm
    return CaseReport("conv", load, by_arm, decisions)


def html_of(cases, every=None):
    return report_page("Title & co", "Subtitle", every or results(), cases)


def sheets_of(every):
    return [*case_sheets(every), *summary_sheets(every)]


def shown(every):
    console = Console(width=80, record=True, file=io.StringIO())
    for sheet in sheets_of(every):
        console.print(terminal(sheet))
    return console.export_text()


def table(sheets, title):
    """{first cell: the others} of the sheet of that title."""
    (sheet,) = [each for each in sheets if each.title.startswith(title)]
    return {row[0]: list(row[1:]) for row in sheet.rows}


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


# --- the page


def test_the_page_has_every_plot_as_valid_svg():
    html = html_of([case()])
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(svgs) == 1 + 3
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
    for caption in ("Goodput", "Attainment over time", "Time to first token", "Decisions ("):
        assert caption in html


def test_the_page_needs_no_network_and_escapes_text():
    html = html_of([case()])
    assert re.findall(r"(?:src|href)=[\"'](?!#)(?!data:)[^\"']*", html) == []
    assert "@import" not in html
    assert "Title &amp; co" in html
    assert "<b>calm</b>" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_same_run_gives_the_same_page():
    assert html_of([case()]) == html_of([case()])


@pytest.mark.parametrize("decisions", [[], DECISIONS[:1]])
def test_a_page_with_few_decisions_or_nobody_served_is_still_written(decisions):
    lost = [outcome(i, met=False, finish="error", ttft_s=None, tpot_s=None) for i in range(3)]
    html = html_of([case(by_arm={"vllm-fcfs": lost, "hmas": lost}, decisions=decisions)])
    assert html.count("<svg") == 1 + 3


def test_page_markdown_and_terminal_have_the_same_sheets():
    every = [*bounded(), *(each | {"scenario": "code"} for each in bounded())]
    html, found = html_of([], every), Summary.of(every)
    text = "".join(map(markdown, sheets_of(found)))
    assert html.count("<svg") == 2 * 2  # goodput and ratios of each scenario
    for scenario in ("conv", "code"):
        for title in ("Goodput in requests/s", "Share of the upper bound"):
            for place in (html, text, shown(found)):
                assert f"{title}, {scenario}" in place
    assert "…" not in shown(found)


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_a_phone_and_a_laptop(page, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(html_of([case()], [*results(0.8), *results(1.5)]), "utf-8")
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(path.as_uri())
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


# --- tables


def test_ratios_and_differences_are_paired_by_seed():
    # what seeds differ in (a tenth more goodput) cancels out: the interval has no width
    sheets = over_loads("conv", summary({"vllm-fcfs": (0.8, 0.4, 0.1), "hmas": (0.8, 0.6, 0.4)}))
    assert table(sheets, "Goodput of H-MAS over each arm") == {
        "vllm-fcfs": ["1.00x (1.00 to 1.00)", "1.50x (1.50 to 1.50)", "4.00x (4.00 to 4.00)"]
    }
    assert table(sheets, "H-MAS less each arm") == {
        "vllm-fcfs": ["+0.0 (+0.0 to +0.0)", "+20.0 (+20.0 to +20.0)", "+30.0 (+30.0 to +30.0)"]
    }


def test_a_seed_that_only_one_arm_ran_counts_for_no_pair():
    every = runs({"vllm-fcfs": (0.8, 0.4, 0.1), "hmas": (0.8, 0.6, 0.4)})
    extra = result_of("conv", 0.5, "hmas", 0.1, seed=3, offered_rps=5.0)
    ratio = Summary.of([*every, extra]).only(load=0.5).ratio("hmas", "vllm-fcfs")
    assert ratio is not None
    assert ratio.mean == pytest.approx(1.0)
    assert ratio.n == 2


def test_where_the_baseline_has_no_goodput_there_is_a_gap_and_no_error():
    found = summary({"vllm-fcfs": (0.8, 0.4, 0.0), "hmas": (0.8, 0.6, 0.4)})
    assert table(over_loads("conv", found), "Goodput of H-MAS over")["vllm-fcfs"][2] == "-"
    assert ratio_svg([("conv", found)], colours(found.each("arm"))).startswith("<?xml")


def test_the_whole_suite_counts_every_case_the_same_and_names_the_best_first():
    every = [
        *runs({"vllm-fcfs": (0.8, 0.4), "hmas": (0.8, 0.6), "fixed-edf": (0.9, 0.7)},
              loads=(0.5, 1.0)),
        *runs({"vllm-fcfs": (0.2, 0.2), "hmas": (0.4, 0.4)}, loads=(0.5, 1.0), scenario="code"),
    ]  # fmt: skip
    (sheet,) = whole_suite(Summary.of(every))
    assert "4 cases a seed" in sheet.title
    assert [row[:3] for row in sheet.rows] == [  # fixed-edf ran half of them: no figure of it
        ["hmas", "55.0% (55.0 to 55.0)", "-"],
        ["vllm-fcfs", "40.0% (40.0 to 40.0)", "+15.0 (+15.0 to +15.0)"],
    ]
    assert whole_suite(summary({"hmas": (0.5,), "vllm-fcfs": (0.4,)}, loads=(1.0,))) == []


def test_words_are_worth_what_is_wanted_and_met():
    shares = {"hmas": 0.6, "words-grammar": 0.72, "words-exact": 0.75}
    told = [
        result_of("launch", 1.2, arm, met, seed=seed, offered_rps=10, goodput_weighted_rps=10 * met,
                  attainment_by_words={"named": met, "others": 1 - met})
        for arm, met in shares.items()
        for seed in (1, 2)
    ]  # fmt: skip
    rows = table(summary_sheets(Summary.of(told)), "What words are worth, launch")
    assert [rows[arm][1].split()[0] for arm in shares] == ["1.00x", "1.20x", "1.25x"]
    assert rows["words-grammar"][2].startswith("0.96x")
    assert [rows["words-exact"][i].split()[0] for i in (4, 5)] == ["75.0%", "25.0%"]
    untold = summary_sheets(summary({"hmas": (0.5,)}, loads=(1.0,)))
    assert not any(sheet.title.startswith("What words are worth") for sheet in untold)


def test_one_load_has_latencies_the_ratio_to_stock_and_groups():
    sheets = one_load("conv", Summary.of(results()))
    rows = table(sheets, "conv at 1.5x capacity")
    assert [rows[arm][1] for arm in ARMS] == ["1.00x", "1.33x", "1.50x"]
    assert table(sheets, "Met per tenant")["hmas"] == ["50.0%", "100.0%"]
    assert re.fullmatch(r"\d\.\d\d/\d\.\d\d/\d\.\d\d", rows["hmas"][3])


def test_the_p99_of_gaps_stands_beside_tpot_where_a_result_has_it():
    known = [one | {"itl_s": {"p50": 0.01, "p99": 0.0734, "max": 1.0}} for one in results()]
    sheet, older = (one_load("conv", Summary.of(each))[0] for each in (known, results()))
    assert sheet.columns[-2:] == ("TPOT ms", "ITL ms")
    assert {row[-1] for row in sheet.rows} == {"73"}
    assert "ITL ms" not in older.columns
    assert [row[:-1] for row in sheet.rows] == older.rows
    assert "itl_s.p99" in Summary.of(known).csv().splitlines()[0].split(",")


def test_preemptions_and_steadiness_are_in_the_details():
    every = [
        summarise(
            CaseRun("kv", 1.2, arm, [outcome(preemptions=n)], (), preemptions=n,
                    recomputed_tokens=tokens),
            1.0,
        )
        for arm, n, tokens in (("vllm-fcfs", 40, 1000), ("fixed-edf", 4, 250))
    ]  # fmt: skip
    (sheet,) = [each for each in summary_sheets(Summary.of(every)) if "steadiness" in each.title]
    row = dict(zip(sheet.columns, sheet.rows[1], strict=True))
    assert (row["arm"], row["preemptions"], row["recomputed tokens"]) == ("fixed-edf", "4.0", "250")


def test_names_with_parameters_are_whole_in_every_report():
    arms = ["fixed-slide:kappa=5+slack+serial", "fixed-sjf:kappa=40+rules"]
    some = [
        summarise(CaseRun("conv", load, arm, outcomes("hmas"), ()), 119.0)
        for load in (0.8, 1.5)
        for arm in ("vllm-fcfs", *arms)
    ]
    html, found = html_of([], some), Summary.of(some)
    for arm in arms:
        assert f">{arm}</td>" in html
        assert any(f"| {arm} |" in markdown(sheet) for sheet in sheets_of(found))
        policy, rules = arm.split("+", 1)
        assert re.search(rf"^ {policy} .*\n  \+{re.escape(rules)} ", shown(found), flags=re.M)
    assert "…" not in shown(found)


def bounded():
    every = runs({"vllm-fcfs": (1.0, 0.8, 0.1), "hmas": (1.0, 1.0, 0.4)})
    for result in every:
        bound = min(result["offered_rps"], 12.0)
        result["bound_rps"], result["bound_share"] = bound, result["goodput_rps"] / bound
    return every


def test_the_share_of_the_bound_is_in_tables_and_plot():
    found = Summary.of(bounded())
    rows = table(over_loads("conv", found), "Share of the upper bound")
    assert [cell.split()[0] for cell in rows["hmas"]] == ["100.0%", "100.0%", "70.0%"]
    assert "upper bound" in words(goodput_svg([("conv", found)], colours(found.each("arm"))))
    assert "upper bound 12.00/s" in " ".join(shown(found).split())


def test_results_without_a_bound_say_nothing_of_it():
    plain = runs({"vllm-fcfs": (1.0, 0.8, 0.1)})
    half = [each | {"bound_rps": None, "bound_share": None} for each in plain]
    for every in (plain, half):
        found = Summary.of(every)
        assert "bound" not in "".join(map(markdown, sheets_of(found)))
        assert "upper bound" not in words(goodput_svg([("conv", found)], colours(["vllm-fcfs"])))


# --- plots


def test_few_arms_are_all_drawn_and_of_many_the_notable_ones():
    few = MANY[: len(OTHERS)]
    assert drawn_arms(few) == few
    assert drawn_arms(MANY) == ("vllm-fcfs", "hmas")


def test_no_two_drawn_arms_share_a_colour():
    few = ("hmas", *MANY[: len(OTHERS) - 1])
    assert len(set(colours(few).values())) == len(few)


def test_with_many_arms_the_rest_is_one_entry_and_one_load_gives_bars():
    found = summary(dict.fromkeys(MANY, (0.9, 0.5, 0.2)))
    drawn = words(goodput_svg([("conv", found)], colours(MANY)))
    assert f"{len(MANY) - 2} other arms" in drawn
    assert "fixed-edf" not in drawn
    one = summary(dict.fromkeys(MANY, (0.5,)), loads=(1.0,))
    assert set(MANY) <= set(words(goodput_svg([("conv", one)], colours(MANY))))


def test_large_ratios_are_drawn_logarithmically_and_without_a_baseline_nothing():
    far = summary({"vllm-fcfs": (0.8, 0.1, 0.02), "hmas": (0.8, 0.9, 0.5)})
    near = summary({"vllm-fcfs": (0.8, 0.5, 0.3), "hmas": (0.8, 0.9, 0.5)})
    ticks = [words(ratio_svg([("c", found)], colours(ARMS))) for found in (far, near)]
    assert "20x" in ticks[0]
    assert "0x" not in ticks[0]  # nowhere on a logarithmic axis
    assert "0x" in ticks[1]
    assert "paper, abstract: 1.2x-3.0x," in ticks[1]
    assert ratio_svg([("c", summary({"hmas": (1, 1, 1)}))], colours(["hmas"])) == ""
    one = summary({"vllm-fcfs": (0.8,), "hmas": (0.9,)}, loads=(1.0,))
    assert ratio_svg([("c", one)], colours(ARMS)) == "", "a dot: the table says it better"


def test_a_file_of_its_own_has_every_scenario_and_needs_no_page():
    found = Summary.of([each | {"scenario": name} for name in "ab" for each in bounded()])
    text = goodput_svg(found.stretches(), colours(found.each("arm")))
    ElementTree.fromstring(text[text.index("<svg") :])
    assert "currentColor" not in text
    assert "currentColor" in inline(text)
    assert {"a", "b"} <= set(words(text))


def test_attainment_of_those_that_words_name_is_drawn_over_scenarios_and_only_then():
    about = {"attainment_by_words": {"named": 0.9, "others": 0.6}}
    met = {"vllm-fcfs": (0.4,), "hmas": (0.7,), "in-advance": (0.8,)}
    stretches = [
        (name, summary(met, loads=(1.4,), scenario=name, **about)) for name in ("w-1", "w-3")
    ]
    drawn = words(words_svg(stretches, colours([*met])))
    assert {"w-1", "w-3", "hmas, named", "in-advance, others"} <= {*drawn}
    assert not any("vllm-fcfs" in text for text in drawn)
    silent = [(name, summary(met, loads=(1.4,), scenario=name)) for name in ("w-1", "w-3")]
    assert words_svg(silent, colours([*met])) == ""
