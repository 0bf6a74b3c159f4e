"""Does `hmas bench engine` serve both engines the same requests, and count what differs?"""

import json
from dataclasses import replace

from evals.checks.bench import engine_bench
from evals.checks.bench.engine_bench import (
    TARGETS,
    bench_cases,
    sessions,
    shortfalls,
    time_case,
)
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from tests.command_line import run_hmas
from tests.serving.samples import mixed_load, profile

SETTINGS = EngineSettings()
LOAD = tuple(mixed_load(60, 40.0, seed=3))
NAMES = ("stock", "start rules", "all rules, prefix cache", "stock, 256 running, 100 waiting")


def cases():
    return {case.name: case for case in bench_cases(LOAD, profile(), 20, seed=0)}


def test_each_case_is_served_by_both_engines_and_no_outcome_differs():
    told: list[str] = []
    results = {
        name: time_case(
            cases()[name], SETTINGS, 20, 1, lambda title, done, total: told.append(title)
        )
        for name in NAMES
    }
    assert [r["different"] for r in results.values()] == [0] * 4
    start = results["start rules"]
    assert start["requests"] == len(LOAD)
    assert 20 <= start["oracle_requests"] < 30, "it stops when so many have left"
    assert 20 <= results[NAMES[-1]]["requests"] == results[NAMES[-1]]["oracle_requests"] < 30
    assert all(r["requests_per_s"] > 0 < r["oracle_requests_per_s"] for r in results.values())
    assert set(told) == set(NAMES)


def test_outcomes_that_differ_are_counted(monkeypatch):
    def other(machine, settings, *, stock):
        return CompiledEngine(replace(machine, token_budget=100), settings, stock=stock)

    monkeypatch.setattr(engine_bench, "CompiledEngine", other)
    result = time_case(cases()["stock"], SETTINGS, 20, 1)
    assert result["different"] > 0
    assert any("not the oracle's" in line for line in shortfalls([result]))


def test_the_cases_are_what_they_are_called():
    found = cases()
    last = found["start rules, 1,024 running, 10,000 waiting"]
    assert len(last.requests) == 1024 + 10_000 + 20
    assert last.profile.max_active_requests == 1024
    assert set(last.arm.rules) == {"slack", "serial", "triage"}
    assert set(found["all rules"].arm.rules) == set(RULES)
    assert found["edf+slack, prefix cache"].arm.rules == ("slack",)
    assert set(TARGETS) == {"stock", "start rules"}
    assert set(TARGETS) < set(found)
    machine = replace(profile(1000), prefix_caching=True)
    chats = sessions(20, seed=1)
    served = CompiledEngine(machine, SETTINGS, stock=True).run_columns(columns(chats, machine))
    assert served.cached_tokens.sum() > 0.2 * sum(one.prompt_tokens for one in chats)


def test_a_slow_engine_falls_short_where_a_speed_is_asked_for():
    least_per_s, least_ratio = TARGETS["stock"]

    def row(per_s, ratio, case="stock"):
        return {"case": case, "requests_per_s": per_s, "ratio": ratio, "different": 0}

    assert shortfalls([row(least_per_s, least_ratio)]) == []
    assert len(shortfalls([row(least_per_s - 1, least_ratio)])) == 1
    assert len(shortfalls([row(least_per_s - 1, least_ratio - 1)])) == 2
    assert len(shortfalls([row(least_per_s - 1, least_ratio, "stock, 6x the rate")])) == 1
    assert shortfalls([row(1, 1, case="all rules")]) == []


def test_the_command_prints_one_object_and_says_what_falls_short(monkeypatch):
    words = (
        "bench", "engine", "--case", "all rules", "--requests", 100, "--oracle-requests", 10,
        "--rounds", 1, "--json", "--check", "--suite", "evals/suites/smoke.toml",
    )  # fmt: skip
    done = run_hmas(*words)
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["case"], result["requests"], result["different"]) == ("all rules", 100, 0)
    monkeypatch.setitem(TARGETS, "all rules", (1e12, 0))
    slow = run_hmas(*words)
    assert slow.exit_code == 1
    assert "requests_per_s" in slow.stderr


def test_an_unknown_case_is_refused_by_name():
    done = run_hmas("bench", "engine", "--case", "stok", "--suite", "evals/suites/smoke.toml")
    assert done.exit_code == 2
    assert "stock" in done.stderr
