"""Does an interrupted suite go on where it stopped, and only with what still holds?"""

import json
import subprocess
import sys
from dataclasses import replace

from evals import case_store
from evals.case_store import CaseStore, FinishedCase, code_digest, key_of
from evals.metrics import CaseRun, summarise
from evals.recording import AppliedDecision
from serving.contracts import Limits
from tests.command_line import run_hmas
from tests.evals.samples import outcome
from tests.evals.test_commands import TINY
from tests.source_tree import ROOT

RUN = CaseRun(
    "s", 1.5, "hmas", [outcome(0), outcome(1, met=False, ttft_s=None)],
    [AppliedDecision(1.0, "edf", Limits(8, 512), "because")], preemptions=2, recomputed_tokens=9,
)  # fmt: skip
CASE = FinishedCase(summarise(RUN, 1.0), RUN)


def test_a_case_comes_back_as_it_was(tmp_path):
    CaseStore(tmp_path).add("k", CASE)
    CaseStore(tmp_path).add_figures("c", {"capacity_rps": 12.5})
    again = CaseStore(tmp_path)
    assert again.find("k") == CASE
    assert again.figures("c") == {"capacity_rps": 12.5}
    assert (again.find("c"), again.find("other"), again.figures("k")) == (None, None, None)


def test_a_case_without_outcomes_leaves_no_file(tmp_path):
    bare = FinishedCase(CASE.result, replace(RUN, outcomes=()))
    CaseStore(tmp_path).add("k", bare)
    assert CaseStore(tmp_path).find("k") == bare
    assert list((tmp_path / "cases").iterdir()) == []


def test_a_line_cut_off_by_a_kill_is_left_out_and_the_next_one_is_whole(tmp_path):
    CaseStore(tmp_path).add_figures("a", {"capacity_rps": 1.0})
    lines = tmp_path / "cases.jsonl"
    lines.write_text(lines.read_text() + '{"key": "b", "capac')
    store = CaseStore(tmp_path)
    assert (store.figures("a"), store.figures("b")) == ({"capacity_rps": 1.0}, None)
    store.add_figures("c", {"capacity_rps": 3.0})
    assert CaseStore(tmp_path).figures("c") == {"capacity_rps": 3.0}


def test_a_key_depends_on_every_part():
    assert key_of(1, "a") == key_of(1, "a")
    assert len({key_of(1, "a"), key_of(1, "b"), key_of("1", "a"), key_of(1), key_of("1, 'a'")}) == 5


def test_the_code_counts_but_not_how_results_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(case_store, "REPO", tmp_path)
    (tmp_path / "serving").mkdir()
    (tmp_path / "evals" / "report").mkdir(parents=True)
    (tmp_path / "hmas_agents").mkdir()
    empty = digests()
    (tmp_path / "evals" / "report" / "page.py").write_text("x")
    (tmp_path / "serving" / "README.md").write_text("x")
    assert digests() == empty
    (tmp_path / "hmas_agents" / "twin.py").write_text("x")
    agents = digests()
    assert (agents[0], agents[1] != empty[1]) == (empty[0], True)
    (tmp_path / "serving" / "queue.py").write_text("x")
    assert not {*digests()} & {*agents, *empty}


def digests():
    """Of the code of arms without and with a controller."""
    return code_digest(controlled=False), code_digest(controlled=True)


WITHOUT_CONTROLLER = """
import sys
import evals.runner
from evals.arms import BASELINES, parse_arm
from evals.baselines import run_case
from tests.evals.small_cases import case

ran = 0
for name in ("vllm-fcfs", "fixed-edf:kappa=3+slack+active=20", *BASELINES):
    if not parse_arm(name).controlled and name != "hindsight-fixed":
        run_case(case(name), lambda done: None)
        ran += 1
tops = {"tools", "hmas_agents", "graphs", "prompts"}
loaded = [name for name in sys.modules if name.split(".")[0] in tops]
assert not loaded, loaded
print(ran, "arms")
"""


def test_an_arm_without_a_controller_goes_through_none_of_its_code():
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_CONTROLLER], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.split()[-2:]) == (0, ["6", "arms"]), ran.stderr


def test_a_second_run_runs_only_what_is_new_and_writes_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("evals.runner.code_digest", lambda controlled: "as it is")
    suite = tmp_path / "tiny.toml"
    text = TINY.replace(', "fixed-fcfs", "hmas"', "").replace("120", "60")
    suite.write_text('seeds = [1, 2]\n' + text)
    out = tmp_path / "out"

    def run():
        result = run_hmas("eval", "run", suite, "--jobs", 1, "--out", out)
        assert result.exit_code == 0, result.output
        return result.stderr, json.loads((out / "results.json").read_text())["results"]

    first_said, first = run()
    assert "run before" not in first_said
    assert [(r["arm"], r["seed"]) for r in first] == [("vllm-fcfs", 1), ("vllm-fcfs", 2)]
    page = (out / "report.html").read_text()
    suite.write_text('seeds = [1, 2]\n' + text.replace('"vllm-fcfs"', '"vllm-fcfs", "fixed-edf"'))
    said, second = run()
    assert "2 of 4 cases were run before" in said
    assert [r for r in second if r["arm"] == "vllm-fcfs"] == first
    suite.write_text('seeds = [1, 2]\n' + text)
    said, third = run()
    assert "2 of 2 cases" in said
    assert third == first
    assert (out / "report.html").read_text() == page
