"""Does `hmas bench engine` serve both engines the same requests, and count what differs?"""

import json
from dataclasses import replace

from evals.checks.bench import engine_bench
from evals.checks.bench.engine_bench import (
    TARGETS,
    EngineBenchOptions,
    bench_cases,
    run_engine_bench,
    sessions,
    shortfalls,
)
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from tests.command_line import run_hmas
from tests.serving.samples import mixed_load, profile

SETTINGS = EngineSettings()
LOAD = tuple(mixed_load(60, 40.0, seed=3))
OPTIONS = EngineBenchOptions(
    ("stock", "start rules", "all rules, prefix cache", "stock, 256 running, 100 waiting"),
    oracle_requests=20, rounds=1,
)  # fmt: skip


def test_each_case_has_a_row_for_each_engine_and_none_differs():
    told: list[str] = []
    cases = bench_cases(LOAD, profile(), 20, seed=0)
    results = run_engine_bench(
        OPTIONS, cases, SETTINGS, lambda title, done, total: told.append(title)
    )
    assert {(r["case"], r["engine"]) for r in results} == {
        (case, engine) for case in OPTIONS.cases for engine in ("compiled", "oracle")
    }
    assert [r["different"] for r in results] == [0] * 8
    requests = {(r["case"], r["engine"]): r["requests"] for r in results}
    assert requests["start rules", "compiled"] == len(LOAD)
    assert 20 <= requests["start rules", "oracle"] < 30, "it stops when so many have left"
    waiting = OPTIONS.cases[-1]
    assert 20 <= requests[waiting, "compiled"] == requests[waiting, "oracle"] < 30
    assert all(r["requests_per_s"] > 0 for r in results)
    assert set(told) == set(OPTIONS.cases)


def test_outcomes_that_differ_are_counted(monkeypatch):
    def other(machine, settings, *, stock):
        return CompiledEngine(replace(machine, token_budget=100), settings, stock=stock)

    monkeypatch.setattr(engine_bench, "CompiledEngine", other)
    cases = bench_cases(LOAD, profile(), 20, seed=0)
    compiled, oracle = run_engine_bench(replace(OPTIONS, cases=("stock",)), cases, SETTINGS)
    assert compiled["different"] > 0
    assert oracle["different"] == 0
    assert any("not the oracle's" in line for line in shortfalls([compiled, oracle]))


def test_the_cases_are_what_they_are_called():
    cases = {case.name: case for case in bench_cases(LOAD, profile(), 20, seed=0)}
    last = cases["start rules, 1,024 running, 10,000 waiting"]
    assert len(last.requests) == 1024 + 10_000 + 20
    assert last.profile.max_active_requests == 1024
    assert set(last.arm.rules) == {"slack", "serial", "triage"}
    assert cases["all rules"].arm.all_rules
    assert cases["edf+slack, prefix cache"].arm.rules == ("slack",)
    assert {order for order in TARGETS if order in cases} == {"stock", "start rules"}
    machine = replace(profile(1000), prefix_caching=True)
    chats = sessions(20, seed=1)
    served = CompiledEngine(machine, SETTINGS, stock=True).run_columns(columns(chats, machine))
    assert served.cached_tokens.sum() > 0.2 * sum(one.prompt_tokens for one in chats)


def test_a_slow_engine_falls_short_where_a_speed_is_asked_for():
    least_per_s, least_ratio = TARGETS["stock"]

    def row(per_s, ratio, case="stock", engine="compiled"):
        return {
            "case": case, "engine": engine, "requests_per_s": per_s, "ratio": ratio,
            "different": 0,
        }  # fmt: skip

    assert shortfalls([row(least_per_s, least_ratio)]) == []
    assert len(shortfalls([row(least_per_s - 1, least_ratio)])) == 1
    assert len(shortfalls([row(least_per_s - 1, least_ratio - 1)])) == 2
    assert shortfalls([row(1, 1, case="all rules"), row(1, 1, engine="oracle")]) == []


def test_the_command_prints_one_object_and_says_what_falls_short(monkeypatch):
    words = (
        "bench", "engine", "--case", "all rules", "--requests", 100, "--oracle-requests", 10,
        "--rounds", 1, "--json", "--check", "--suite", "evals/suites/smoke.toml",
    )  # fmt: skip
    done = run_hmas(*words)
    assert done.exit_code == 0, done.output
    compiled, oracle = json.loads(done.stdout)["results"]
    assert {"case", "engine", "requests", "requests_per_s", "ratio", "different"} <= set(oracle)
    assert (compiled["engine"], compiled["requests"], compiled["different"]) == ("compiled", 100, 0)
    monkeypatch.setitem(TARGETS, "all rules", (1e12, 0))
    slow = run_hmas(*words)
    assert slow.exit_code == 1
    assert "requests_per_s" in slow.stderr


def test_an_unknown_case_is_refused_by_name():
    done = run_hmas(
        "bench", "engine", "--case", "stok", "--suite", "evals/suites/smoke.toml"
    )
    assert done.exit_code == 2
    assert "stock" in done.stderr
