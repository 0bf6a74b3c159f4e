"""Do all arms of a live run, servers by URL among them, serve the same requests in turn?"""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from evals.arms.steering import ArmError
from evals.live.run import LiveRun, in_turn, run_live_suite
from evals.live.server import connect
from evals.progress import CaseProgress
from evals.report.sheet import markdown
from evals.report.summary import Summary
from evals.report.tables import summary_sheets
from evals.requests.columns import RequestColumns
from evals.requests.offer import Workload
from evals.requests.rows import Rows
from evals.suite.shapes import Span
from evals.suite.suite import Suite
from serving.contracts import TraceRequest
from tests.evals.fake_openai import FakeOpenAI, serving
from tests.fakes import FakeEngine

LOADS, SEEDS, LENGTH_S = (1.0, 2.0), (0, 1), 0.1
SUITE = Suite.model_validate(
    {
        "name": "tiny",
        "half": "any",
        "minutes": LENGTH_S / 60,
        "loads": LOADS,
        "arms": ["vllm-fcfs", "fixed-edf"],
        "seeds": SEEDS,
        "settings": {"slo_scale": 1000},
        "tenants": [{"name": "a", "slo_class": "interactive"}],
        "scenarios": [{"name": "conv", "trace": "azure-conv"}],
    }
)
REQUESTS = tuple(
    TraceRequest(i / 200, 5 + i, 1 + i % 3, "a", "interactive", priority=1) for i in range(20)
)


class Early:
    """Sends while it counts, and nothing in the tail, for which a test would have to wait."""

    def send(self, factor, block):
        return Rows(RequestColumns.of(REQUESTS)).send(factor, replace(block, length_s=LENGTH_S))


WORKLOADS = [
    Workload(
        "conv",
        SUITE.scenarios[0],
        "any",
        seed,
        "",
        (Early(),),
        Span(LENGTH_S, tail_s=5.0),
        4096,
        (),
        "made up",
    )
    for seed in SEEDS
]
ARMS = ["vllm-fcfs", "fixed-edf", "sglang"]
CASES = [(seed, load, arm) for seed in SEEDS for load in LOADS for arm in ARMS]


@pytest.fixture(scope="module")
def played():
    """One run, on two servers: what came of it, and what each of them was asked."""
    with ExitStack() as stack:
        hooked = stack.enter_context(serving(FakeOpenAI("vllm", ends_answers=True)))
        other = stack.enter_context(serving(FakeOpenAI("sglang", tokens_per_chunk=2)))
        for fake in (hooked, other):
            fake.pages["/metrics"] = "vllm:num_requests_running 0\n"
        other.pages["/server_info"] = {"version": "0.5.23"}
        run = play(hooked, other)
    return run, hooked, other


def play(hooked, other):
    live = LiveRun(
        SUITE, connect(hooked.url, FakeEngine()), CaseProgress(),
        [connect(other.url, name="sglang")], capacity_s=3.0,
    )  # fmt: skip
    return run_live_suite(live, WORKLOADS)


def test_a_server_by_url_is_an_arm_at_every_load_of_every_round(played):
    run, _, other = played
    assert [(r["seed"], r["load"], r["arm"]) for r in run.results] == CASES
    assert [(r.load, r.arm) for r in run.runs] == [case[1:] for case in CASES]
    # How many there are goes by the capacity that was found, which is less on a busy machine.
    assert all(r["attainment"] == 1.0 and r["requests"] >= 1 for r in run.results)
    assert all(r["load_counted"] == pytest.approx(r["load"], rel=0.2) for r in run.results)
    assert len({r["capacity_rps"] for r in run.results}) == 1  # measured once
    hooked, plain = run.results[0], run.results[2]
    assert hooked["engine"] == "live tiny"
    assert plain["engine"] == f"live sglang: tiny at {other.url} (sglang 0.5.23)"
    assert set(plain) == set(hooked)
    assert (hooked["preemptions"], hooked["recomputed_tokens"]) == (0, 0)
    assert (plain["preemptions"], plain["recomputed_tokens"]) == (None, None)


def test_all_arms_are_offered_the_same_requests_at_the_same_times(played):
    run, hooked, other = played
    for load in LOADS:
        stock, ours = (hooked.bodies(f"conv-{load:g}-{arm}-") for arm in SUITE.arms)
        plain = other.bodies(f"conv-{load:g}-sglang-")
        for key in ("prompt", "ignore_eos", "temperature", "stream_options"):
            assert [b[key] for b in plain] == [b[key] for b in stock] == [b[key] for b in ours]
        assert [b["vllm_xargs"] for b in stock] == [b["vllm_xargs"] for b in ours]
        arrivals = [
            [o.arrival_s - case.outcomes[0].arrival_s for o in case.outcomes]
            for case in run.runs
            if case.load == load
        ]
        assert arrivals[0] == pytest.approx(arrivals[2], abs=1e-5)
        tokens = [[o.output_tokens for o in r.outcomes] for r in run.runs if r.load == load]
        assert tokens[0] == tokens[1] == tokens[2]
        assert sum(map(len, tokens[::3])) == len(plain)
        assert sorted(tokens[0] + tokens[3]) == sorted(b["max_tokens"] for b in plain)


def test_lengths_are_told_to_the_server_that_cannot_do_without_and_the_result_says_so(played):
    run, hooked, other = played
    told = {r["arm"]: r["lengths_told"] for r in run.results}
    assert told == {"vllm-fcfs": False, "fixed-edf": False, "sglang": True}
    assert all(r["wrong_lengths"] == 0 for r in run.results)
    longest = max(r.output_tokens for r in REQUESTS)
    assert {b["max_tokens"] for b in hooked.bodies("conv-")} == {longest}
    assert {b["max_tokens"] for b in other.bodies("conv-")} == {1, 2, 3}
    for each in ("lateness_s", "itl_s", "longest_gap_s"):
        assert set(run.results[0][each]) == {"p50", "p99", "max"}
    columns = Summary.of(run.results).csv().splitlines()[0].split(",")
    assert {"lateness_s.p99", "itl_s.p99", "longest_gap_s.p99", "lengths_told"} <= {*columns}


def test_a_server_without_the_hook_gets_nothing_that_only_the_hook_understands(played):
    _, hooked, other = played
    plain = {key for body in other.bodies("conv-") for key in body}
    assert {"vllm_xargs", "priority"} & plain == set()
    assert {"vllm_xargs", "priority"} <= set(hooked.bodies("conv-1-vllm-fcfs-")[0])


def test_no_arm_finds_the_prompts_of_another_in_the_prefix_cache(played):
    _, hooked, other = played
    replays = [
        fake.bodies(f"conv-{load:g}-{arm}-")
        for load in LOADS
        for fake, arm in ((hooked, "vllm-fcfs"), (hooked, "fixed-edf"), (other, "sglang"))
    ]
    salts = [{body["cache_salt"] for body in bodies} for bodies in replays]
    assert [len(each) for each in salts] == [len(SEEDS)] * 6
    assert len(set.union(*salts)) == 6 * len(SEEDS)


def test_arms_take_turns_at_going_first(played):
    _, hooked, _ = played
    orders = [in_turn("abc", turn) for turn in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    served = [name.rsplit("-", 1)[0] for name, _ in hooked.asked if name.startswith("conv-")]
    assert list(dict.fromkeys(served)) == [
        "conv-1-vllm-fcfs", "conv-1-fixed-edf", "conv-2-fixed-edf", "conv-2-vllm-fcfs",
    ]  # fmt: skip


def test_the_report_shows_it_beside_the_arms_of_the_suite(played):
    run, _, _ = played
    text = "".join(map(markdown, summary_sheets(Summary.of(run.results))))
    assert text.count("| sglang |") >= len(LOADS)


def test_requests_too_long_for_a_server_stop_the_run_before_anything_is_measured():
    with serving(FakeOpenAI("vllm")) as hooked, serving(FakeOpenAI()) as other:
        other.pages["/v1/models"]["data"][0]["max_model_len"] = 24
        with pytest.raises(ArmError, match=r"--server sglang=.* takes 24 tokens"):
            play(hooked, other)
    assert not hooked.bodies("conv-")
    assert not any(name.startswith("capacity-") for name, _ in hooked.asked)
