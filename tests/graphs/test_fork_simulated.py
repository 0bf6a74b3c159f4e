"""A decision of a simulated run goes on from what the ledger holds, with the real twin."""

import pytest

from graphs.fork import Change, fork
from graphs.long_horizon import build_long_horizon
from graphs.parts import build_parts
from hmas_agents.config import load_config
from hmas_agents.ledger import LedgerReader, StoredDecision
from hmas_agents.records import Proposal
from hmas_agents.twin.process import InProcess
from serving.contracts import CostCoefficients
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from tests.graphs.test_simulated_loop import workload

# A slow machine: few steps to simulate.
SLOW = EngineProfile("slow", "made up", CostCoefficients(0.05, 2e-4, 2e-4), 64, 2048, 4000)
CONFIG = load_config(
    None,
    {
        "model.enabled": False,
        "twin.horizon_s": 10.0,
        "twin.draws": 4,
        "twin.candidates": 20,
        "control.allow_policies": ("fcfs", "edf", "sjf", "slide"),
    },
)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> StoredDecision:
    """One long decision at 20 s, in the middle of a run."""
    from serving.engines.simulated import SimulatedEngine

    ledger = tmp_path_factory.mktemp("fork") / "l.sqlite"
    engine = SimulatedEngine(SLOW, EngineSettings(slo_scale=4.0))
    made: list[object] = []
    parts = build_parts(
        engine, CONFIG, ledger, run_label="", controller_id="hmas",
        on_decision=made.append, forecaster=InProcess(),
    )  # fmt: skip
    graph = build_long_horizon(parts)

    def tick() -> None:
        parts.watch.look()
        if engine.now() >= 20.0 and not made:
            graph.invoke({"trigger": "tick", "budget_s": None})

    parts.watch.look()
    engine.run(workload(150, 5.0), ((2.0, tick),), until_s=24.0)
    parts.close()
    with LedgerReader(ledger) as reader:
        return reader.list_decisions(horizon="long")[0]


def test_the_same_futures_are_seen_again(decided):
    record = decided.record
    again = fork(decided, Change("summarise", CONFIG), InProcess())
    assert sum(each.predicted is not None for each in record.proposals) >= 4  # all allowed ones
    assert [(p.source, p.policy, p.predicted) for p in again.proposals] == [
        (p.source, p.policy, p.predicted) for p in record.proposals
    ]
    assert again.chosen["policy"] == record.chosen["policy"]


def test_a_proposal_by_hand_gets_the_twin_s_word(decided):
    by_hand = Proposal("person", "slide", {"kappa": 60.0})
    change = Change("verify", CONFIG, [by_hand])
    again = fork(decided, change, InProcess())
    judged = next(each for each in again.proposals if each.source == "person")
    assert judged.predicted is not None
    assert len(again.proposals) == len(decided.record.proposals) + 1
    assert not again.chosen["applied"]
