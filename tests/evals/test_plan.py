"""Does `hmas plan` simulate replicas exactly, send requests as vLLM does, and say what it found?"""

import json
from dataclasses import replace

import numpy as np
import pytest

from evals.arms.steering import Steering
from evals.plan import plan as plan_module
from evals.plan.plan import PlanOptions, hook_of, needed, run_plan, sentences
from evals.plan.traffic import Traffic, at_load, targets_ms
from evals.requests.columns import RequestColumns
from evals.suite.arms import parse_arm
from serving.contracts import SLO, Contract, CostCoefficients, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns, slos_of
from serving.engines.profile import EngineProfile
from serving.engines.replicas import serve_on_replicas
from tests.command_line import run_hmas
from tests.evals.small_cases import MACHINE, workload

STOCK, START = parse_arm("vllm-fcfs"), parse_arm("fixed-edf:kappa=3+slack+serial+triage")
SETTINGS = EngineSettings(
    contract=Contract(classes={"interactive": ClassTerms(ttft_ms=500, tpot_ms=30, itl_ms=20)})
)
TIGHT = replace(MACHINE, kv_blocks=260, max_active_requests=8)
CACHING = replace(MACHINE, kv_blocks=400, prefix_caching=True)
# Each step takes 10 ms, whatever is in it.
CLOCK = EngineProfile("clock", "made up", CostCoefficients(0.01, 0.0, 0.0), 8, 2048, 101, 16, 4096)


def sent(count=120, rate_rps=25.0, **changes):
    """Requests that say how long an answer they allow, so that any part of them does the same."""
    requests = workload(count, rate_rps)
    longest = max(one.output_tokens for one in requests)
    return tuple(
        replace(one, arrival_s=one.arrival_s - requests[0].arrival_s, max_tokens=longest, **changes)
        for one in requests
    )


def chats(*how):
    return tuple(replace(one, prefix=(i % 5, i % 3, i)) for i, one in enumerate(sent(*how)))


def traffic_of(requests, machine):
    return Traffic("test", RequestColumns.of(requests), machine, SETTINGS)


def on_replicas(requests, machine, arm, count):
    traffic = traffic_of(requests, machine)
    loaded = at_load(traffic, 1.0, seed=0)
    slos = slos_of(loaded.senders, SETTINGS)
    run = serve_on_replicas(machine, loaded, count, hook_of(traffic, arm), slos)
    return run, run.served.outcomes(requests, engine_of(machine, arm).settings)


def each_target_ms(requests, settings):
    sent = traffic_of(requests, MACHINE).columns
    return targets_ms(slos_of(sent.senders, settings))[sent.sender]


def engine_of(machine, arm):
    engine = CompiledEngine(machine, SETTINGS, stock=arm is STOCK)
    if arm is not STOCK:
        Steering(engine, machine, arm.name).put_in_force(arm, "test")
    return engine


@pytest.mark.parametrize("arm", [STOCK, START], ids=["stock", "start"])
@pytest.mark.parametrize(
    ("machine", "requests"),
    [
        (MACHINE, sent()), (TIGHT, sent()), (CACHING, chats()),
        (MACHINE, sent(1500, 1e5)),  # more wait than a queue has room for at first
    ],
    ids=["roomy", "tight", "caching", "at once"],
)  # fmt: skip
def test_one_replica_does_what_the_compiled_engine_does(machine, requests, arm):
    run, outcomes = on_replicas(requests, machine, arm, 1)
    expected = engine_of(machine, arm).run(requests)
    assert outcomes == expected
    targets = each_target_ms(requests, engine_of(machine, arm).settings)
    assert run.served.met(targets).tolist() == [one.met for one in expected]
    if machine is TIGHT:
        assert run.served.preemptions.sum() > 0
    if machine is CACHING:
        assert run.served.cached_tokens.sum() > 0


@pytest.mark.parametrize("arm", [STOCK, START], ids=["stock", "start"])
@pytest.mark.parametrize(
    ("machine", "requests"),
    [(MACHINE, sent(150, 60.0)), (TIGHT, sent(150, 60.0)), (CACHING, chats(150, 60.0))],
    ids=["roomy", "tight", "caching"],
)
def test_each_request_is_served_once_by_an_engine_that_has_only_those_sent_to_it(
    machine, requests, arm
):
    run, outcomes = on_replicas(requests, machine, arm, 3)
    assert {one.finish for one in outcomes} <= {"stop", "length"}
    assert sorted(set(run.replica_of.tolist())) == [0, 1, 2]
    for k in range(3):
        own = np.flatnonzero(run.replica_of == k)
        alone = engine_of(machine, arm).run_columns(
            columns([requests[i] for i in own], machine), requests=[requests[i] for i in own]
        )
        for name in ("known", "first_token_s", "last_s", "preemptions", "cached_tokens"):
            np.testing.assert_array_equal(run.served.progress[name][own], alone.progress[name])


def test_what_the_model_cannot_take_is_rejected_and_met_by_nobody():
    requests = (*sent(3), TraceRequest(9.0, 5000, 5, "a", "batch", max_tokens=9))
    run, outcomes = on_replicas(requests, MACHINE, STOCK, 2)
    assert [one.finish for one in outcomes][-1] == "rejected"
    assert not run.served.met(each_target_ms(requests, SETTINGS))[-1]


def test_requests_go_to_the_lowest_score_by_counts_that_may_be_old():
    def at(arrival_s, answer):
        return TraceRequest(arrival_s, 10, answer, "a", "batch", max_tokens=1000)

    requests = (
        at(0.0, 1), at(0.001, 900),  # in turn
        at(0.002, 1), at(0.003, 900),
        at(0.05, 1),  # replica 0 is empty, but 2 are thought to wait: a tie, and its turn
        at(0.09, 900),  # empty again, and 3 are thought to wait there: 2 are fewer
        # 0.1 s later it is known that all three are at replica 1: three more for replica 0.
        at(0.25, 900), at(0.26, 900), at(0.27, 900),
        at(0.28, 900),  # a tie, and the other's turn
    )  # fmt: skip
    run, _ = on_replicas(requests, CLOCK, STOCK, 2)
    assert run.replica_of.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 0, 1]


def test_those_that_wait_count_more_where_the_kv_cache_is_full():
    def at(arrival_s, prompt):
        return TraceRequest(arrival_s, prompt, 50, "a", "batch", max_tokens=1000)

    requests = (
        at(0.0, 1500), at(0.001, 10), at(0.002, 1500), at(0.003, 10),
        # Replica 0 runs one with 94 of 100 blocks, and one waits: 2 + 6 * 0.44 = 4.64. Replica 1
        # has 2, and one more each time, until it has 5.
        *(at(0.11 + i / 1000, 10) for i in range(4)),
    )  # fmt: skip
    run, _ = on_replicas(requests, CLOCK, STOCK, 2)
    assert run.replica_of.tolist() == [0, 1, 0, 1, 1, 1, 1, 0]


def test_a_load_keeps_the_clock_and_copies_share_no_prompts():
    traffic = traffic_of(chats(), CACHING)
    once, twice, half = (at_load(traffic, load, seed=3) for load in (1.0, 2.0, 0.5))
    assert once.prompt_tokens.tolist() == [one.prompt_tokens for one in chats()]
    assert once.arrival_s.tolist() == [one.arrival_s for one in chats()]
    prompts = once.prompt_tokens.tolist()
    assert sorted(twice.prompt_tokens.tolist()) == sorted(2 * prompts)
    for loaded in (twice, half):
        assert (np.diff(loaded.arrival_s) >= 0).all()
        assert loaded.arrival_s[-1] <= once.arrival_s[-1]
    assert 40 < len(half) < 80
    assert len(set(half.arrival_s.tolist())) == len(half)
    assert set(half.arrival_s.tolist()) < set(once.arrival_s.tolist())
    assert once.contents is not None
    assert twice.contents is not None
    own = set(once.contents.shared.tolist())
    assert len(set(twice.contents.shared.tolist())) == 2 * len(own) - 1  # 0 is none


def test_every_policy_sees_the_same_arrivals_and_an_answer_holds_from_there_on(monkeypatch):
    seen = []

    def noted(machine, offered, *rest):
        seen.append(offered)
        return serve_on_replicas(machine, offered, *rest)

    monkeypatch.setattr(plan_module, "serve_on_replicas", noted)
    traffic = traffic_of(sent(), MACHINE)
    told = []
    results = run_plan(
        traffic, PlanOptions((1.0, 2.0), (1, 2), (STOCK, START), 0.9),
        lambda title, done, total: told.append((done, total)),
    )  # fmt: skip
    assert len({id(one) for one in seen[:4]}) == len({id(one) for one in seen[4:]}) == 1
    assert [(r["load"], r["replicas"], r["policy"]) for r in results[:3]] == [
        (1.0, 1, "vllm-fcfs"), (1.0, 1, START.name.removeprefix("fixed-")), (1.0, 2, "vllm-fcfs"),
    ]  # fmt: skip
    assert told[-1] == (1440, 1440)
    for one in results:
        assert one["goodput_rps"] == pytest.approx(one["attainment"] * one["offered_rps"])
        assert one["goodput_per_replica_rps"] * one["replicas"] == pytest.approx(one["goodput_rps"])
    shares = [("a", 1, 0.99), ("a", 2, 0.8), ("a", 4, 0.96), ("a", 8, 1.0), ("b", 1, 0.1)]
    tried = [
        {"load": 1, "policy": name, "replicas": count, "attainment": share}
        for name, count, share in shares
    ]
    answers = [(one["replicas"], one["too_few"]) for one in needed(tried, 0.95)]
    assert answers == [(4, 2), (None, 1)]
    assert sentences([one | {"offered_rps": 7.0} for one in tried], 0.95) == [
        "At load 1x (7.0 requests/s) 95% meet their SLOs with 4 replicas (2 are too few) under a, "
        "not with 1 replica under b."
    ]


def test_targets_are_those_of_the_class_or_the_requests_own():
    own = replace(sent(1)[0], slo=SLO(e2e_ms=70.0))
    listed = replace(own, slo=None, slo_class="interactive", arrival_s=1.0)
    expected = [[np.inf, np.inf, 70.0], [500.0, 30.0, np.inf]]
    assert each_target_ms((own, listed), SETTINGS).tolist() == expected


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    rows = "".join(f"2023-11-16 18:15:{i % 60:02}.0000000,{300 + i},{20 + i}\n" for i in range(40))
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    return path


def test_the_command_prints_tables_and_answers_and_writes_files(trace, tmp_path):
    done = run_hmas("plan", trace, "--load", "1,2", "--replicas", "1..3", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    flat = " ".join(done.stdout.split())
    assert "At load 1x (1.0 requests/s) 95% meet their SLOs with 1 replica under" in flat
    assert "1 replica under edf:kappa=3+slack+serial+triage." in flat
    assert "TTFT" in flat
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "plan.json", "plan.md", "plan.svg",
    ]  # fmt: skip
    assert "load 2x, 2.1 requests/s" in (tmp_path / "out" / "plan.svg").read_text()


def test_json_is_one_object(trace):
    done = run_hmas("plan", trace, "--replicas", "1,2", "--policy", "sjf+slack", "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"traffic", "profile", "seed", "meet", "needed", "results"}
    assert [(r["replicas"], r["policy"]) for r in document["results"]] == [
        (1, "vllm-fcfs"), (1, "sjf+slack"), (2, "vllm-fcfs"), (2, "sjf+slack"),
    ]  # fmt: skip
    assert set(document["results"][0]) == {
        "load", "replicas", "policy", "requests", "offered_rps", "attainment", "goodput_rps",
        "goodput_per_replica_rps", "ttft_s", "tpot_s", "waiting_peak", "preemptions",
    }  # fmt: skip
    assert document["needed"][0] == {
        "load": 1.0, "policy": "vllm-fcfs", "replicas": 1, "too_few": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--load", "2..0.5"], "--load 2..0.5: numbers must grow"),
        (["--load", "one"], "--load one: expected FIRST..LAST"),
        (["--load", "0,1"], "--load 0,1: 0 is not in"),
        (["--replicas", "1.5,2"], "--replicas 1.5,2: 1.5 is not a whole number"),
        (["--replicas", "1..2..3"], "--replicas 1..2..3: expected"),
        (["--policy", "edff"], "--policy edff: policy 'edff' does not exist; did you mean 'edf'?"),
        (["--policy", "edf+slak"], "--policy edf+slak:"),
        (["--slo-class", "gold"], "--slo-class gold: known: interactive"),
        (["--profile", "h300"], "no 'h300' in evals/profiles"),
        (["--format", "mooncake"], "read as mooncake: see --format"),
    ],
)
def test_errors_name_what_is_wrong(trace, words, said):
    done = run_hmas("plan", trace, *words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert done.stderr.startswith("hmas plan: ")


def test_a_missing_trace_is_named(tmp_path):
    done = run_hmas("plan", tmp_path / "none.csv")
    assert done.exit_code == 2
    assert "none.csv: cannot be read: No such file" in done.stderr
