"""Does `hmas bench simulator` compare like with like, and say when it cannot?"""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.arms import parse_arm
from evals.bench import simulator_bench
from evals.bench.simulated_once import Timing, peak_waiting, simulate
from evals.bench.simulator_bench import (
    HERE,
    SimulatorBenchError,
    SimulatorBenchOptions,
    job_of,
    run_simulator_bench,
    summarise,
)
from serving.engines.simulated import SimulatedEngine
from serving.settings import EngineSettings
from tests.command_line import run_hmas
from tests.serving.samples import mixed_load, profile

LOAD = tuple(mixed_load(30, 40.0, seed=3))


def timing(cpu_s: float, digest: str = "same") -> Timing:
    return Timing(
        cpu_s=cpu_s, wall_s=2 * cpu_s, build_s=0.1, simulated_s=100.0, peak_waiting=7,
        peak_rss_mb=500.0, digest=digest,
    )  # fmt: skip


def test_the_speedup_is_taken_pair_by_pair():
    runs = {
        "before": [timing(2.0), timing(9.0), timing(6.0)],
        "now": [timing(1.0), timing(3.0), timing(4.0)],
    }
    result = summarise(runs, requests=60)
    assert (result["speedup_low"], result["speedup"], result["speedup_high"]) == (1.5, 2.0, 3.0)
    assert result["now"]["requests_per_s"] == 20.0
    assert result["now"]["simulated_s_per_s"] == pytest.approx(33.3)
    assert result["before"]["requests_per_s"] == 10.0


def test_trees_that_disagree_are_an_error():
    with pytest.raises(SimulatorBenchError, match="outcomes of 60 requests differ"):
        summarise({"before": [timing(2.0, "one")], "now": [timing(1.0, "other")]}, requests=60)


def test_another_tree_is_the_one_that_runs_and_its_error_is_shown(tmp_path):
    shutil.copytree(HERE / "serving", tmp_path / "serving")
    engine = tmp_path / "serving" / "engines" / "simulated.py"
    engine.write_text("raise ImportError('this is the other tree')\n")
    options = SimulatorBenchOptions(
        parse_arm("vllm-fcfs"), requests=(30,), rounds=1, against=tmp_path
    )
    with pytest.raises(SimulatorBenchError, match="this is the other tree"):
        run_simulator_bench(options, LOAD, profile(), EngineSettings())


def test_a_run_is_the_arms_own_and_repeats_itself():
    settings = EngineSettings(slo_scale=2.0)
    jobs = [job_of(parse_arm(arm), LOAD, profile(), settings) for arm in ("vllm-fcfs", "fixed-edf")]
    stock, again, edf = simulate(jobs[0]), simulate(jobs[0]), simulate(jobs[1])
    assert stock["digest"] == again["digest"] != edf["digest"]
    outcomes = SimulatedEngine(profile(), settings, stock=True).run(LOAD)
    last_s = max(outcome.finished_s for outcome in outcomes)
    assert stock["simulated_s"] == pytest.approx(last_s - LOAD[0].arrival_s)


def test_a_timed_arm_has_its_own_parameters_rules_and_bound():
    named, plain = (
        job_of(parse_arm(name), LOAD, profile(), EngineSettings())["decision"]
        for name in ("fixed-edf:kappa=3+slack+active=2", "fixed-edf")
    )
    assert named is not None
    assert plain is not None
    assert named["params"] == {"kappa": 3.0}
    assert named["limits"]["max_active_requests"] == 2
    assert {key for key in named if named[key] != plain[key]} == {"params", "limits"}


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.01, 9)), max_size=12))
def test_peak_waiting_is_the_most_at_any_arrival(waits):
    inside = [
        sum(arrival_s <= at_s < arrival_s + wait_s for arrival_s, wait_s in waits)
        for at_s, _ in waits
    ]
    assert peak_waiting(waits) == max(inside, default=0)


def test_there_is_a_row_per_length_and_rate(monkeypatch):
    monkeypatch.setattr(simulator_bench, "_run", lambda tree, job, on_finished: simulate(job))
    options = SimulatorBenchOptions(parse_arm("fixed-edf"), (10, 30), (1.0, 50.0), rounds=1)
    results = run_simulator_bench(options, LOAD, profile(), EngineSettings())
    asked = [(10, 1.0), (10, 50.0), (30, 1.0), (30, 50.0)]
    assert [(r["requests"], r["rate_scale"]) for r in results] == asked
    calm, busy = results[2:]
    assert busy["peak_waiting"] > calm["peak_waiting"]
    assert busy["simulated_s"] < calm["simulated_s"]


def test_the_command_runs_this_tree_and_prints_one_object():
    done = run_hmas("bench", "simulator", "--requests", 10, "--rounds", 1, "--json")
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["arm"], result["requests"]) == ("fixed-edf", 10)
    assert result["now"]["requests_per_s"] > 0
    assert "before" not in result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--arm", "hmas"], "take vllm-fcfs or fixed-POLICY"), (["--arm", "nope"], "unknown arm")],
)
def test_an_arm_that_cannot_be_timed_is_refused(arguments, said):
    done = run_hmas("bench", "simulator", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
