"""Does `hmas bench scheduler` time the same state, and report what it promises?"""

import json

from evals.checks.bench.scheduler_bench import CONTROL, HOOK, STOCK, Field, summarise
from tests.command_line import run_hmas


def run(*args):
    return run_hmas("bench", "scheduler", *args)


def test_every_policy_and_length_has_a_row_with_ratio_and_noise(tmp_path):
    done = run(
        "--waiting", 12, "--waiting", 40, "--running", 6, "--policies", "fcfs,edf",
        "--steps", 12, "--rounds", 2, "--json", "--out", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    rows = [(r["waiting"], r["policy"], r["case"]) for r in document["results"]]
    kinds = ("", "binding", "planned")
    assert rows == [(n, p, k) for n in (12, 40) for p in ("fcfs", "edf") for k in kinds]
    for result in document["results"]:
        assert bool(result["rules"]) == bool(result["case"])
        assert result["same_work"] or result["case"] == "binding"
        assert result["samples"] == 24
        assert result["ratio_low"] <= result["ratio_high"]
        assert min(result[k] for k in ("ratio", "control", "hook_us", "add_hook_us")) > 0
    memory = document["memory"]
    assert memory["request_bytes"] > memory["stock_bytes"] > 0 < memory["hook_added_bytes"]
    assert (tmp_path / "operations.png").stat().st_size > 1000


def test_an_unknown_policy_is_named():
    done = run("--policies", "edf,nope")
    assert done.exit_code == 2
    assert "no policy 'nope'" in done.stderr


def test_the_arms_stay_alike_while_they_are_timed():
    field = Field(waiting=30, running=5, seed=1, on_progress=lambda _: None)
    field.apply("sjf")
    kinds = ("add", "abort", "schedule", "step", "pop", "requests", "tokens")
    samples = {name: {kind: list[int]() for kind in kinds} for name in field.arms}
    for _ in range(30):
        before = {r.request_id for r in field.arms[HOOK].scheduler.running}
        field.turns(7, samples)
        inside = {
            name: (
                [r.request_id for r in arm.scheduler.running],
                {r.request_id for r in arm.scheduler.waiting},
            )
            for name, arm in field.arms.items()
        }
        assert inside[HOOK] == inside[STOCK] == inside[CONTROL]
        assert before != set(inside[HOOK][0])
    field.pop(samples)
    assert len(samples[HOOK]["schedule"]) == len(samples[CONTROL]["step"]) == 210


def test_ratios_are_taken_turn_by_turn():
    kinds = ("schedule", "step", "add", "abort", "pop", "requests", "tokens")
    times = {STOCK: [100, 200, 400], HOOK: [150, 300, 600], CONTROL: [100, 200, 400]}
    result = summarise([{arm: {k: list(t) for k in kinds} for arm, t in times.items()}], [2.0])
    assert (result["ratio"], result["control"], result["hook_us"]) == (1.5, 1.0, 0.3)
    assert not result["same_work"]
    assert (result["work"], result["mean_ratio"], result["per_request_ratio"]) == (1.5, 1.5, 1.0)
