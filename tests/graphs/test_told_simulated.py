"""What was told acts on the compiled engine: it helps whom it names, and then it is over."""

import random

from graphs.control_loop import ControlLoop
from hmas_agents.intent.change import Change
from hmas_agents.intent.told import ToldChange, ToldStore, told_path
from serving.contracts import CostCoefficients, TraceRequest
from serving.contracts.contract import Contract
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from tests.graphs.fake_loop import config

PROFILE = EngineProfile(
    "test", "made up", CostCoefficients(0.0065, 35e-6, 35e-6, 33e-9), 256, 2048, 40_000, 16, 16_384
)
CONTRACT = Contract.model_validate({"tenants": {"acme": {}, "beta": {}, "gamma": {}}})
FROM_S, UNTIL_S = 60.0, 150.0


def overload():
    """Three tenants that send the same, more than can be served in time."""
    draw, now_s = random.Random(7), 0.0
    while now_s < 210.0:
        now_s += draw.expovariate(20.0)
        prompt, output = draw.lognormvariate(6.8, 0.7), draw.lognormvariate(4.9, 0.8)
        yield TraceRequest(
            now_s, max(1, min(int(prompt), 8000)), max(2, int(output)),
            draw.choice(sorted(CONTRACT.tenants)), draw.choice(["interactive", "conversational"]),
        )  # fmt: skip


def run(ledger, *changes):
    with ToldStore(told_path(ledger), create=True) as store:
        told = store.add(0.0, "ann", "words")
        store.approve(told, [ToldChange(told, 0, each, FROM_S, UNTIL_S) for each in changes])
    engine = CompiledEngine(PROFILE, EngineSettings(contract=CONTRACT))
    settings = config(control__start_policy="slide", control__allow_policies=("slide",))
    with ControlLoop(engine, settings, ledger) as loop:
        loop.short_tick()
        outcomes = engine.run(list(overload()), ((2.0, loop.short_tick),))
        return outcomes, engine.contract()


def attained(outcomes, tenant):
    met = [o.met for o in outcomes if o.tenant == tenant and FROM_S <= o.arrival_s < UNTIL_S]
    return sum(met) / len(met)


def test_a_weight_serves_its_tenant_in_its_time_and_changes_nothing_before(tmp_path):
    without, _ = run(tmp_path / "without.sqlite")
    weight = Change(kind="weight", tenant="acme", factor=10.0)
    told, held = run(tmp_path / "told.sqlite", weight)
    assert attained(told, "acme") > attained(without, "acme") + 0.03
    assert attained(told, "beta") < attained(without, "beta")
    before = [o for o in without if o.finished_s < FROM_S]
    assert before
    assert [o for o in told if o.finished_s < FROM_S] == before
    assert (held.epoch, held.by) == (2, "words")
    assert {name: terms.weight for name, terms in held.contract.tenants.items()} == {
        "acme": 1.0, "beta": 1.0, "gamma": 1.0
    }  # fmt: skip
