"""Do the plots of one case show switches, changes of traffic, targets, and what was decided?"""

import json
import re
from dataclasses import replace

from evals.report.case_section import (
    MOST_POINTS,
    CaseReport,
    attainment_over_time_figure,
    case_section,
    latency_figure,
    switches,
)
from evals.report.figures import colours
from evals.report.files import write_files
from evals.result.metrics import CaseRun, summarise
from evals.result.recording import AppliedDecision
from evals.result.run_result import SuiteRun
from evals.suite.arms import expand_arms
from serving.contracts import SLO, Limits
from tests.evals.samples import outcome

START_S = 1000.0
DECISIONS = [
    AppliedDecision(START_S, "slide", Limits(64, 2048), "start"),
    AppliedDecision(START_S + 40, "slide", Limits(64, 1024, follow_slack=True), "slack"),
    AppliedDecision(START_S + 90, "edf", Limits(32, 1024, pace_decodes=True), "calm"),
]


def outcomes(n=180):
    return [outcome(i, arrival_s=START_S + i, met=i % 3 > 0, ttft_s=0.1 + i / 100)
            for i in range(n)]  # fmt: skip


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def longest_path(svg):
    return max(len(re.findall(r"[ML] ", path)) for path in re.findall(r' d="([^"]*)"', svg))


def test_switches_are_changes_of_policy_after_the_start():
    assert switches(DECISIONS, START_S) == [(0.0, "slide"), (90.0, "edf")]


def over_time(**marks):
    by_arm = {"vllm-fcfs": outcomes(), "hmas": outcomes()}
    return words(attainment_over_time_figure("a", by_arm, colours(list(by_arm)), **marks))


def test_policies_and_changes_of_traffic_are_marked_over_time():
    marked = over_time(switches=[(0.0, "slide"), (90.0, "edf")], moments_s=[60.0])
    assert {"slide", "edf", "hmas switches", "traffic changes"} <= set(marked)
    assert not {"hmas switches", "traffic changes"} & set(over_time())


def test_policies_that_change_too_fast_to_be_read_are_not_written_over_each_other():
    fast = over_time(switches=[(0.0, "slide"), (0.5, "edf"), (1.0, "sjf"), (90.0, "srpt")])
    assert {"slide", "srpt"} <= set(fast)
    assert not {"edf", "sjf"} & set(fast)


def test_a_target_is_marked_only_where_all_requests_have_the_same():
    same = {"hmas": outcomes()}
    two = {"hmas": [*outcomes(), replace(outcome(), slo=SLO(ttft_ms=9000))]}
    for which in ("ttft_s", "tpot_s"):
        assert "SLO target" in words(latency_figure("l", same, which, colours(["hmas"])))
        assert "SLO target" not in words(latency_figure("l", two, which, colours(["hmas"])))


def test_a_distribution_of_many_requests_stays_small():
    # a step has two points per value
    svg = latency_figure("l", {"hmas": outcomes(5000)}, "ttft_s", colours(["hmas"]))
    assert longest_path(svg) <= 2 * MOST_POINTS + 2


def test_decisions_name_policies_limits_and_only_the_rules_that_acted():
    shown = case_section(CaseReport("s", 1.0, {"hmas": ()}, DECISIONS), colours(["hmas"]))
    assert shown["decisions"] == [
        ("0.0", "slide", "budget 2048, active 64", "start"),
        ("40.0", "slide", "budget 1024, active 64, rules slack", "slack"),
        ("90.0", "edf", "budget 1024, active 32, rules pace", "calm"),
    ]


def test_a_case_where_nobody_has_outcomes_shows_the_decisions_alone():
    section = case_section(CaseReport("s", 1.0, {"hmas": ()}, DECISIONS), colours(["hmas"]))
    assert not section["figures"]
    assert len(section["decisions"]) == len(DECISIONS)


def suite_run(arms, seeds=(1, 2)):
    runs = [
        CaseRun("s", 1.0, arm, outcomes() if seed == 1 else (), DECISIONS if arm == "hmas" else ())
        for seed in seeds
        for arm in arms
    ]
    whole = [replace(run, outcomes=outcomes()) for run in runs]
    results = [
        summarise(run, 179.0, moments_s=[60.0]) | {"seed": seed}
        for run, seed in zip(whole, [seed for seed in seeds for _ in arms], strict=True)
    ]
    return SuiteRun("demo", 1, {}, results, runs)


def test_of_many_arms_the_notable_ones_have_outcomes_and_plots(tmp_path):
    arms = expand_arms(["vllm-fcfs", "fixed-*", "hmas"])
    write_files(suite_run(arms), tmp_path, "many")
    lines = (tmp_path / "outcomes.jsonl").read_text().splitlines()
    assert {json.loads(line)["arm"] for line in lines} == {"vllm-fcfs", "hmas"}
    html = (tmp_path / "report.html").read_text()
    assert "Decisions (3)" in html
    assert "traffic changes" in html
    for arm in arms:
        assert f">{arm}</td>" in html


def test_the_folder_has_both_plots_and_the_markdown_shows_them(tmp_path):
    (tmp_path / "ratio.svg").write_text("of an earlier run")
    run = suite_run(["vllm-fcfs", "hmas"])
    twice = [dict(result, load=load) for load in (1.0, 1.5) for result in run.results]
    write_files(replace(run, results=twice, runs=[*run.runs, *run.runs]), tmp_path, "two")
    text = (tmp_path / "results.md").read_text()
    for name in ("goodput.svg", "ratio.svg"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_text().startswith("<?xml")
    write_files(suite_run(["fixed-edf"]), tmp_path, "no baseline")
    assert not (tmp_path / "ratio.svg").exists()
    assert "ratio.svg" not in (tmp_path / "results.md").read_text()
