"""The same graphs on the simulator's clock: they act, they help, and they repeat."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.records import DecisionRecord
from serving.contracts import CostCoefficients, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

PROFILE = EngineProfile(
    "test", "made up", CostCoefficients(0.0065, 35e-6, 35e-6, 33e-9), 256, 2048, 40_000, 16, 16_384
)


def workload(count: int, rate_rps: float) -> list[TraceRequest]:
    draw, now_s, requests = random.Random(7), 0.0, []
    for _ in range(count):
        now_s += draw.expovariate(rate_rps)
        prompt, output = int(draw.lognormvariate(6.8, 0.7)), int(draw.lognormvariate(4.9, 0.8))
        requests.append(
            TraceRequest(
                now_s, max(1, min(prompt, 8000)), max(2, output), draw.choice("abc"),
                draw.choice(["interactive", "conversational"]),
            )
        )
    return requests


def run(ledger: Path | None) -> tuple[list[Outcome], list[DecisionRecord]]:
    from serving.engines.simulated import SimulatedEngine

    # slide is what should win here, so it is left for the loop to find.
    config = load_config(
        None,
        {
            "control.mode": "act",
            "control.long_tick_s": 10.0,
            "control.min_dwell_s": 0.0,
            "control.start_policy": "fcfs",
            "control.allow_policies": ("fcfs", "sjf", "edf", "density", "slide"),
            "model.enabled": False,
        },
    )
    records: list[DecisionRecord] = []
    engine = SimulatedEngine(PROFILE, EngineSettings())
    with ControlLoop(engine, config, ledger, on_decision=records.append) as loop:
        loop.short_tick()
        tickers = ((2.0, loop.short_tick), (10.0, loop.long_tick))
        return engine.run(workload(500, 22.0), tickers), records


def test_the_loop_finds_a_better_policy_and_repeats_itself(tmp_path):
    outcomes, records = run(tmp_path / "l.sqlite")
    assert len(outcomes) == 500
    switch = next(r for r in records if r.horizon == "long" and r.chosen["applied"])
    incumbent = next(p for p in switch.proposals if p.source == "incumbent")
    assert switch.policy_before == "fcfs"
    assert switch.predicted is not None
    assert incumbent.predicted is not None
    assert switch.predicted > incumbent.predicted + 0.02
    assert switch.snapshot_after["policy"] == switch.chosen["policy"]
    served_by = {o.policy for o in outcomes if o.epoch >= switch.epoch_after}
    assert switch.chosen["policy"] in served_by

    again, same_records = run(None)
    assert again == outcomes
    assert [repeatable(r) for r in same_records] == [repeatable(r) for r in records]


def repeatable(record: DecisionRecord) -> dict[str, Any]:
    """All of a decision but the wall clock, and what only a ledger is given."""
    fields = asdict(record) | {"situation": {}}
    fields["twin"].pop("wall_s", None)
    return fields
