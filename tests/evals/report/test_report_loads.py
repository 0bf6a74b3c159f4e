"""Do the curves over load say what the results say: ratios, the bound, which arms are drawn?"""

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evals.report import drawn_arms, markdown_report, terminal_report, write_suite_report
from evals.report.arms_drawn import MOST_ARMS_DRAWN, NOTABLE
from evals.report.bound_share import bound_sheets
from evals.report.figures import colours
from evals.report.load_curves import LoadCurves
from evals.report.load_figures import goodput_figure, goodput_file, ratio_figure
from evals.report.ratios import ratio_sheets
from evals.result.statistics import over_seeds
from evals.suite.arms import expand_arms
from tests.evals.load_samples import curves, result_of, rows, runs

SIMULATED = tuple(arm for arm in NOTABLE if arm != "sglang")
MANY = expand_arms(["vllm-fcfs", "fixed-*", "fixed-*+rules", "hmas", "hindsight-fixed"])


def panel_text(svg):
    """The words of a figure."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


# --- ratios


def test_ratios_are_paired_by_seed():
    # what seeds differ in (a tenth more goodput) cancels out: the interval has no width
    found = curves({"vllm-fcfs": (0.8, 0.4, 0.1), "hmas": (0.8, 0.6, 0.4)})
    (sheet,) = ratio_sheets(found)
    assert sheet.title == "Goodput over vllm-fcfs, conv"
    assert rows(sheet) == [
        ["0.5x", "1.00x (1.00-1.00)"],
        ["1x", "1.50x (1.50-1.50)"],
        ["2x", "4.00x (4.00-4.00)"],
    ]


def test_a_seed_that_only_one_arm_ran_counts_for_no_ratio():
    every = runs({"vllm-fcfs": (0.8, 0.4, 0.1), "hmas": (0.8, 0.6, 0.4)})
    extra = result_of("conv", 0.5, "hmas", 0.1, seed=3, offered_rps=5.0)
    ratio = LoadCurves("conv", [*every, extra]).ratio(0.5, "hmas", "vllm-fcfs")
    assert ratio is not None
    assert ratio.mean == pytest.approx(1.0)
    assert ratio.n == 2


def test_both_baselines_and_the_best_fixed_arm_are_compared():
    found = curves({
        "vllm-fcfs": (0.8, 0.4, 0.1), "sglang-emulated": (0.8, 0.5, 0.2),
        "fixed-edf": (0.9, 0.6, 0.1), "fixed-slide": (0.8, 0.6, 0.6), "rules-only": (0.9, 0.5, 0.3),
    })  # fmt: skip
    assert found.best_fixed == "fixed-slide"
    sheets = ratio_sheets(found)
    assert [sheet.title.split(",")[0] for sheet in sheets] == [
        "Goodput over vllm-fcfs", "Goodput over sglang-emulated"
    ]  # fmt: skip
    assert list(sheets[0].columns) == ["load", "rules-only", "fixed-slide"]
    words = panel_text(ratio_figure(found, colours(found.arms)))
    assert {"over vllm-fcfs", "over sglang-emulated"} <= set(words)
    assert "paper, abstract: 1.2x-3.0x," in words


def test_a_server_named_sglang_is_a_baseline_too():
    found = curves({"sglang": (0.8, 0.5, 0.2), "hmas": (0.8, 0.5, 0.4)})
    (sheet,) = ratio_sheets(found)
    assert sheet.title == "Goodput over sglang, conv"
    assert rows(sheet)[2] == ["2x", "2.00x (2.00-2.00)"]


def test_where_the_baseline_has_no_goodput_there_is_a_gap_and_no_error():
    found = curves({"vllm-fcfs": (0.8, 0.4, 0.0), "hmas": (0.8, 0.6, 0.4)})
    assert found.ratio(2.0, "hmas", "vllm-fcfs") is None
    assert rows(ratio_sheets(found)[0])[2] == ["2x", "-"]
    assert ratio_figure(found, colours(found.arms)).startswith("<svg")


def test_large_ratios_are_drawn_logarithmically_and_without_a_baseline_nothing():
    far = curves({"vllm-fcfs": (0.8, 0.1, 0.02), "hmas": (0.8, 0.9, 0.5)})
    near = curves({"vllm-fcfs": (0.8, 0.5, 0.3), "hmas": (0.8, 0.9, 0.5)})
    ticks = [panel_text(ratio_figure(found, colours(found.arms))) for found in (far, near)]
    assert "20x" in ticks[0]
    assert "0x" not in ticks[0]  # nowhere on a logarithmic axis
    assert "0x" in ticks[1]
    alone = curves({"fixed-edf": (1, 1, 1)})
    assert ratio_figure(alone, colours(alone.arms)) == ""


# --- the upper bound


def bounded():
    every = runs({"vllm-fcfs": (1.0, 0.8, 0.1), "hmas": (1.0, 1.0, 0.4)})
    for result in every:
        bound = min(result["offered_rps"], 12.0)
        result["bound_rps"] = bound
        result["bound_share"] = result["goodput_rps"] / bound
        result["bound_binding"] = "load" if bound < 12.0 else "slots"
    return every


def test_the_share_of_the_bound_is_in_tables_plot_and_terminal():
    found = LoadCurves("conv", bounded())
    (sheet,) = bound_sheets(found)
    assert rows(sheet) == [
        ["bound, requests/s", "5.25", "10.50", "12.00"],
        ["what binds", "load", "load", "slots"],
        ["vllm-fcfs", "100%", "80%", "18%"],
        ["hmas", "100%", "100%", "70%"],
    ]
    assert "upper bound" in panel_text(goodput_figure(found, colours(found.arms)))
    text = markdown_report(bounded())
    assert "| vs FCFS | of bound | attainment |" in text
    assert "| 4.00x | 70.0% | 40.0% |" in text  # of hmas at 2x
    assert "## Share of the upper bound, conv" in text
    assert "upper bound 12.00/s" in " ".join(shown(bounded()).split())


def test_results_without_a_bound_say_nothing_of_it():
    plain = runs({"vllm-fcfs": (1.0, 0.8, 0.1)})
    half = [each | {"bound_rps": None, "bound_share": None, "bound_binding": ""} for each in plain]
    for results in (plain, half):
        found = LoadCurves("conv", results)
        assert bound_sheets(found) == []
        assert "upper bound" not in panel_text(goodput_figure(found, colours(found.arms)))
        assert "bound" not in markdown_report(results)


# --- which arms are drawn


def test_few_arms_are_all_drawn_and_of_many_the_notable_ones():
    few = MANY[:MOST_ARMS_DRAWN]
    assert drawn_arms(few) == few
    assert drawn_arms(MANY) == ("vllm-fcfs", "hmas", "hindsight-fixed")
    without = [arm for arm in MANY if arm != "hindsight-fixed"]
    assert drawn_arms(without) == ("vllm-fcfs", "fixed-slide+rules", "hmas")
    assert len(drawn_arms([*MANY, *NOTABLE])) <= MOST_ARMS_DRAWN
    assert "sglang" in drawn_arms([*MANY, "sglang"])


def test_no_two_drawn_arms_share_a_colour():
    for arms in (("hmas", *MANY[: MOST_ARMS_DRAWN - 1]), (*SIMULATED, "fixed-edf", "fixed-slide")):
        assert len(set(colours(arms).values())) == len(arms) <= MOST_ARMS_DRAWN


def test_with_many_arms_the_best_fixed_one_is_named_and_the_rest_is_one_entry():
    met = dict.fromkeys(MANY, (0.9, 0.5, 0.2)) | {"fixed-sjf": (0.95, 0.7, 0.3)}
    found = curves(met)
    words = panel_text(goodput_figure(found, colours(found.strong_arms())))
    assert "fixed-sjf (best fixed)" in words
    assert f"{len(MANY) - 4} other arms" in words
    assert "fixed-edf" not in words


def test_one_load_gives_a_named_bar_for_every_arm():
    found = curves(dict.fromkeys(MANY, (0.5,)), loads=(1.0,))
    words = panel_text(goodput_figure(found, colours(found.strong_arms())))
    assert set(MANY) <= set(words)


# --- in step


def shown(results):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_report(results))
    return console.export_text()


def test_page_markdown_and_terminal_have_the_same_sheets(tmp_path):
    every = [*bounded(), *(each | {"scenario": "code"} for each in bounded())]
    write_suite_report(tmp_path / "r.html", "T", "S", every, [])
    html, text = (tmp_path / "r.html").read_text(), markdown_report(every)
    for scenario in ("conv", "code"):
        for title in ("Highest rate with 90% and 99% met", "Goodput over vllm-fcfs",
                      "Share of the upper bound"):  # fmt: skip
            for place in (html, text, shown(every)):
                assert f"{title}, {scenario}" in place
    assert "…" not in shown(every)


def test_a_file_of_its_own_has_every_scenario_and_needs_no_page():
    found = [LoadCurves(name, [each | {"scenario": name} for each in bounded()]) for name in "ab"]
    text = goodput_file(found, colours(found[0].arms))
    ElementTree.fromstring(text[text.index("<svg") :])
    assert "currentColor" not in text
    assert {"a", "b"} <= set(panel_text(text))


def test_means_alone_can_still_be_shown():
    means = over_seeds(bounded())
    assert "Highest rate" in markdown_report(means)
    assert goodput_figure(LoadCurves("conv", means), colours(["vllm-fcfs", "hmas"]))
