"""A ledger as a run of the whole loop leaves it, small and always the same."""

import random
from pathlib import Path
from unittest.mock import patch

from hmas_agents.config import load_config
from hmas_agents.records import Proposal
from serving.contracts import CostCoefficients, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

# Slow enough that 90 requests are an overload.
PROFILE = EngineProfile(
    "test", "made up", CostCoefficients(0.02, 250e-6, 100e-6, 33e-9), 32, 2048, 4_000, 16, 8_192
)
REQUESTS = 90
LABEL = "overload"


def workload() -> list[TraceRequest]:
    draw, now_s, requests = random.Random(3), 0.0, []
    for _ in range(REQUESTS):
        now_s += draw.expovariate(8.0)
        prompt, output = int(draw.lognormvariate(6.2, 0.7)), int(draw.lognormvariate(3.0, 0.6))
        requests.append(
            TraceRequest(
                now_s, max(1, min(prompt, 4000)), max(2, output), draw.choice("abc"),
                draw.choice(["interactive", "conversational"]),
            )
        )  # fmt: skip
    return requests


def make_ledger(path: Path, mode: str = "act") -> None:
    """Run the loop on a simulated engine and keep what it decided."""
    from graphs.control_loop import ControlLoop
    from serving.engines.simulated import SimulatedEngine

    config = load_config(
        None,
        {
            "control.mode": mode,
            "control.start_policy": "fcfs",
            "control.start_rules": ["slack", "serial"],  # triage would mend what fcfs does
            "control.min_dwell_s": 0.0,
            "control.allow_policies": ["fcfs", "sjf", "edf", "slide"],
            "model.enabled": False,
            "twin.enabled": False,
        },
    )
    engine = SimulatedEngine(PROFILE, EngineSettings())
    # Always the same switch, whatever the rule table will say one day.
    to_edf = Proposal("rules", "edf", reason="deadlines can be met")
    with (
        patch("hmas_agents.rule_table.choose", return_value=to_edf),
        ControlLoop(engine, config, path, run_label=LABEL) as loop,
    ):
        loop.short_tick()
        # The only switch comes late: many are served, and kept waiting, under fcfs alone.
        engine.run(workload(), ((2.0, loop.short_tick), (20.0, loop.long_tick)))
