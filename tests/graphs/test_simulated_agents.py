"""Rule agents on the simulator's clock: still without trouble, at work against their own."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.records import DecisionRecord
from serving.contracts import SLO, CostCoefficients, Outcome, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

COST = CostCoefficients(0.0065, 35e-6, 35e-6, 33e-9)
PROFILE = EngineProfile("test", "made up", COST, 256, 2048, 40_000, 16, 16_384)
Rate = Callable[[str, float], float]  # requests per second of a tenant at a time


def traffic(
    rate: Rate, until_s: float, classes: dict[str, str], *, prompt: float = 6.8, seed: int = 7
) -> list[TraceRequest]:
    """Poisson arrivals of each tenant, lognormal lengths; exp(6.8) is about 900 tokens."""
    draw, requests = random.Random(seed), list[TraceRequest]()
    for tenant, slo_class in classes.items():
        now_s = 0.0
        while (now_s := now_s + draw.expovariate(40.0)) < until_s:
            if draw.random() < rate(tenant, now_s) / 40.0:
                tokens = min(8000, 1 + int(draw.lognormvariate(prompt, 0.7)))
                answer = 2 + int(draw.lognormvariate(4.6, 0.8))
                requests.append(TraceRequest(now_s, tokens, answer, tenant, slo_class))
    return sorted(requests, key=lambda request: request.arrival_s)


def serve(
    requests: Sequence[TraceRequest],
    *,
    profile: EngineProfile = PROFILE,
    settings: EngineSettings = EngineSettings(),  # noqa: B008  frozen
    policy: str = "edf",
    **config: object,
) -> tuple[list[Outcome], list[DecisionRecord]]:
    from serving.engines.simulated import SimulatedEngine

    loaded = load_config(None, {
        "control.mode": "act", "control.start_policy": policy, "model.enabled": False,
        "control.allow_policies": ("fcfs", "edf", "slide"),
        "twin.enabled": False, **{key.replace("__", "."): value for key, value in config.items()},
    })  # fmt: skip
    engine, records = SimulatedEngine(profile, settings), list[DecisionRecord]()
    with ControlLoop(engine, loaded, None, on_decision=records.append) as loop:
        loop.short_tick()
        outcomes = engine.run(requests, [(loaded.control.short_tick_s, loop.short_tick)])
    return outcomes, records


def calls(records: Sequence[DecisionRecord], tool: str) -> list[tuple[float, object]]:
    """When a tool was called by a rule agent, and with which argument."""
    return [
        (record.at_s, next(value for key, value in call.args.items() if key != "reason"))
        for record in records
        for call in record.tool_calls
        if record.trigger == "tick" and call.accepted and call.tool == tool
    ]


def attained(outcomes: Sequence[Outcome], *tenants: str) -> float:
    theirs = [outcome.met for outcome in outcomes if outcome.tenant in tenants]
    return sum(theirs) / len(theirs)


@pytest.mark.parametrize("policy", ["slide", "edf", "fcfs"])
def test_below_saturation_nothing_but_the_start_is_called(policy):
    shares = {"big": 4.5, "small": 0.5, "cheap": 1.0}  # as uneven as a flood, but no trouble
    classes = {"big": "conversational", "small": "interactive", "cheap": "batch"}
    requests = traffic(lambda tenant, _: shares[tenant], 120.0, classes)
    settings = EngineSettings(contract=with_classes({}, ["batch"]))
    outcomes, records = serve(requests, settings=settings, policy=policy)
    assert attained(outcomes, *classes) > 0.97
    assert [record.trigger for record in records] == ["start"]


QUIET = ("quiet-1", "quiet-2", "quiet-3")
FLOOD_S = (40.0, 100.0)


def flooding(tenant: str, now_s: float) -> float:
    return 25.0 if tenant == "flooder" and FLOOD_S[0] <= now_s < FLOOD_S[1] else 1.5


def test_a_flood_switches_the_buckets_on_and_its_end_off_and_the_others_gain():
    requests = traffic(flooding, 180.0, dict.fromkeys(("flooder", *QUIET), "conversational"))
    # Triage alone helps the quiet ones already, since a flood's requests come late.
    rules = ("slack", "serial")
    outcomes, records = serve(requests, control__start_rules=rules)
    switched = calls(records, "set_tenant_buckets")
    assert [on for _, on in switched] == [True, False]
    assert FLOOD_S[0] < switched[0][0] < FLOOD_S[0] + 30.0
    assert switched[1][0] > FLOOD_S[1]
    others = ("admission", "batching", "prefill")
    without, _ = serve(requests, control__start_rules=rules, agents__enabled=others)
    assert attained(outcomes, *QUIET) > attained(without, *QUIET) + 0.05


def test_sheddable_requests_are_refused_while_all_are_late_and_the_others_gain():
    def rate(tenant: str, now_s: float) -> float:
        busy = 10.0 <= now_s < 130.0
        return 5.0 if busy else 1.0 if tenant == "chat" else 2.0

    targets = {"batch": SLO(ttft_ms=5_000), "conversational": SLO(ttft_ms=5_000)}
    settings = EngineSettings(contract=with_classes(targets, ["batch"]))
    requests = traffic(rate, 190.0, {"chat": "conversational", "bulk": "batch"}, prompt=7.8)
    outcomes, records = serve(requests, settings=settings, policy="fcfs")
    shares = [share for _, share in calls(records, "set_shed_share")]
    assert shares[0] == 0.25
    assert shares[-1] == 0.0, "when it is over, everybody is let in again"
    refused = [outcome for outcome in outcomes if outcome.finish == "rejected"]
    assert {(outcome.tenant, outcome.met) for outcome in refused} == {("bulk", False)}
    never = EngineSettings(contract=with_classes(targets))
    without, _ = serve(requests, settings=never, policy="fcfs")
    assert all(outcome.finish != "rejected" for outcome in without)
    assert attained(outcomes, "chat") > attained(without, "chat") + 0.05
    assert attained(outcomes, "chat", "bulk") > attained(without, "chat", "bulk")


def test_beside_long_answers_decodes_take_turns_so_that_chats_keep_pace_and_then_no_more():
    def rate(tenant: str, now_s: float) -> float:
        return 5.0 if tenant == "chat" else 8.0 if 20.0 <= now_s < 70.0 else 0.0

    machine = replace(PROFILE, cost=CostCoefficients(0.008, 1e-4, 1e-4, 64e-9))
    classes = {"chat": "interactive", "reasoner": "conversational"}
    requests = [
        replace(r, output_tokens=800) if r.tenant == "reasoner" else r
        for r in traffic(rate, 150.0, classes, prompt=5.5)
    ]
    outcomes, records = serve(requests, profile=machine)
    paced = [on for _, on in calls(records, "set_decode_pacing")]
    assert paced[0] is True
    assert paced[-1] is False
    others = ("tenant_shares", "admission", "prefill")
    without, _ = serve(requests, profile=machine, agents__enabled=others)
    assert attained(outcomes, "chat") > attained(without, "chat") + 0.05
    assert attained(outcomes, *classes) > attained(without, *classes) + 0.02
