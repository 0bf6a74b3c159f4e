"""A loop on a fake engine, and the traffic that it serves."""

from pathlib import Path
from typing import Any

from graphs import dialogue
from graphs.control_loop import ControlLoop
from hmas_agents.config import Config, load_config
from hmas_agents.ledger import LedgerReader
from hmas_agents.records import DecisionRecord
from serving.contracts import SLO, Arrival, Contract, ContractInForce, KVState, Outcome
from tests.fakes import FakeEngine

# Tests jump in time, so the lease is long except where it is what is tested.
ALONE = {"model.enabled": False, "twin.enabled": False, "control.ttl_s": 1000.0}

# What words can be about: two tenants, a class that has targets and one that can be shed.
CONTRACT = Contract.model_validate({
    "believe_clients": True,
    "tenants": {"a": {}, "acme": {"floor": 0.3}},
    "classes": {"interactive": {"ttft_ms": 500, "tpot_ms": 30}, "bulk": {"sheddable": True}},
})  # fmt: skip

FORECAST = {
    "seen_s": 60.0, "policy": "edf", "notes": [], "futures": 32, "horizon_s": 60.0,
    "shares": [{"name": "a", "now": 0.71, "then": 0.93, "chance": 0.01}],
}  # fmt: skip


def config(**overrides: Any) -> Config:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, {"control.mode": "act", **ALONE, **dotted})


class Loop:
    """A loop on a fake engine, with its records at hand."""

    def __init__(self, engine: FakeEngine, settings: Config, ledger: Path | None = None) -> None:
        self.engine, self.records = engine, list[DecisionRecord]()
        self.loop = ControlLoop(engine, settings, ledger, on_decision=self.records.append)

    def use_twin(self, twin: Any) -> None:
        self.loop._parts.twin = twin

    def short(self, now_s: float) -> None:
        self.engine.now_s = now_s
        self.loop.short_tick()

    def long(self, now_s: float) -> DecisionRecord:
        self.engine.now_s = now_s
        self.loop.long_tick()
        return self.records[-1]


def engine_of_words(monkeypatch: Any) -> FakeEngine:
    """The engine that every dialogue meets: a minute old, and with room in its KV cache."""
    engine = FakeEngine(
        now_s=60.0, held_contract=ContractInForce(0, CONTRACT), kv=KVState(total_blocks=4000)
    )
    monkeypatch.setattr(dialogue, "connect", lambda url, token: engine)
    return engine


def looking(engine: FakeEngine, ledger: Path, **overrides: Any) -> Loop:
    """A controller that has looked at 80 requests of `a`."""
    loop = Loop(engine, config(**overrides), ledger)
    loop.short(1.0)
    serve(engine, 80, at_s=20.0)
    loop.long(60.0)
    return loop


def words_config(folder: Path) -> Config:
    """Of whoever tells: a ledger and a token in a folder, and no long wait for the controller."""
    token = folder / "hmas.token"
    token.write_text("secret")
    return config(
        ledger__path=folder / "ledger.sqlite", engine__token_file=token, control__short_tick_s=0.01
    )


def serve(engine: FakeEngine, count: int, at_s: float, met: bool = True) -> None:
    """`count` requests from `at_s` on, two a second, each served in a second."""
    slo = SLO(ttft_ms=500, tpot_ms=30)
    for i in range(count):
        seq, name = len(engine.events), f"q{len(engine.events)}"
        arrival_s = at_s + i * 0.5
        engine.events.append(Arrival(seq, name, arrival_s, "a", "interactive", slo, 100, 50))
        engine.events.append(
            Outcome(
                seq + 1, name, arrival_s, arrival_s + 1.0, "a", "interactive", slo, 100, 20, 0.0,
                0.1 if met else 3.0, 0.01, 1.0, met, "" if met else "ttft_queue", "stop",
                engine.policy, engine.epoch,
            )
        )


def decisions(path: Path) -> list[DecisionRecord]:
    reader = LedgerReader(path)
    return [reader.get_decision(row.id).record for row in reader.list_decisions()]
