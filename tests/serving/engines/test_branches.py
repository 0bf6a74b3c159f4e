"""A branch serves as the compiled engine does that starts from the same requests."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import (
    SLO,
    CostCoefficients,
    Decision,
    Limits,
    Outcome,
    ResidentRequest,
    TraceRequest,
)
from serving.contracts.rules import RULES, with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.branches import Branches, Drawn, Forecast
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun

SMALL = EngineProfile(
    "small", "for tests", CostCoefficients(4e-3, 150e-6, 60e-6, 1e-9), max_active_requests=12,
    token_budget=256, kv_blocks=260, block_size=16, max_model_len=1024,
)  # fmt: skip
SETTINGS = EngineSettings()
LIMITS = Limits(12, 256)
FOREVER_S = 80_000.0
AT_S, UNTIL_S = 6.0, 9.0
POLICIES = ("fcfs", "edf", "slide", "srpt", "fair", "mlfq")
CLASSES = ("interactive", "conversational", "batch")


def offered(seed: int, prefixes: bool) -> list[TraceRequest]:
    rng = np.random.default_rng(seed)
    at_s = np.sort(rng.uniform(0.0, 12.0, 160))
    return [
        TraceRequest(
            float(at), int(rng.integers(4, 500)), int(rng.integers(1, 90)),
            f"t{rng.integers(3)}", CLASSES[rng.integers(3)], int(rng.integers(3)),
            tuple(int(x) for x in rng.integers(0, 3, 1)) if prefixes else (), 120,
        )
        for at in at_s
    ]  # fmt: skip


def from_zero(one: ResidentRequest) -> ResidentRequest:
    return replace(
        one, arrival_s=one.arrival_s - AT_S,
        admitted_s=None if one.admitted_s is None else one.admitted_s - AT_S,
        first_token_s=None if one.first_token_s is None else one.first_token_s - AT_S,
    )  # fmt: skip


def judged_alike(outcomes: list[Outcome], said: Forecast) -> bool:
    """Attainment of those decided; a worth that counts none, some or all of those that wait."""
    waits = [one for one in outcomes if waits_in_time(one)]
    going = [one for one in outcomes if one.finish == "unfinished" and one.ttft_s is not None]
    on_time = sum(one.miss == "not_served" for one in going)
    decided = len(outcomes) - len(waits) - on_time
    met = sum(one.met for one in outcomes)
    attainment = met / decided if decided else 1.0
    least, most = (met + on_time) / len(outcomes), (met + on_time + len(waits)) / len(outcomes)
    return (
        said.attainment == pytest.approx(attainment, rel=1e-12)
        and least - 1e-12 <= said.worth <= most + 1e-12
    )


def waits_in_time(one: Outcome) -> bool:
    allowed_ms = min(one.slo.ttft_ms or math.inf, one.slo.e2e_ms or math.inf)
    return one.finish == "unfinished" and one.ttft_s is None and 1000 * one.e2e_s <= allowed_ms


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    policy=st.sampled_from(POLICIES),
    rules=st.sets(st.sampled_from(sorted(RULES))),
    caching=st.booleans(),
)
def test_a_branch_is_the_compiled_engine_to_the_last_request(seed, policy, rules, caching):
    profile = replace(SMALL, prefix_caching=caching)
    decision = Decision("me", 1, FOREVER_S, policy, {}, with_rules(LIMITS, rules))
    requests = offered(seed, caching)
    engine = CompiledEngine(profile, SETTINGS)
    engine.apply(decision)
    served = engine.run(requests, until_s=AT_S)
    page = engine.inside()
    inside = [from_zero(one) for one in page.requests]
    answers = [
        (one.tenant, one.prompt_tokens, 120, one.output_tokens) for one in served
        if one.finish == "stop"
    ]  # fmt: skip

    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(requests), 60)
    arrival_s = np.sort(rng.uniform(0.0, UNTIL_S + 2, 60))
    lengths = rng.integers(1, 120, 60).astype(np.int32)
    whole = np.array([one.output_tokens + rng.integers(1, 60) for one in inside], np.int32)

    reference = CompiledEngine(profile, SETTINGS)
    reference.learn_lengths(answers)
    reference.apply(decision)
    reference.resume(
        [Begun(one, int(tokens)) for one, tokens in zip(inside, whole, strict=True)],
        page.prefill_s_per_token,
    )
    coming = [
        replace(requests[i], arrival_s=float(at), output_tokens=int(tokens))
        for i, at, tokens in zip(which, arrival_s, lengths, strict=True)
    ]
    counted = arrival_s < UNTIL_S - 2
    awaited = [f"b{i}" for i in range(len(inside))] + [f"r{i}" for i in np.flatnonzero(counted)]
    outcomes = reference.run(coming, until_s=UNTIL_S, until_left=awaited)
    judged = [*reference.resumed_outcomes, *(outcomes[i] for i in np.flatnonzero(counted))]

    branches = Branches(
        profile, SETTINGS, decision, inside, requests, answers, page.prefill_s_per_token
    )
    weights = np.concatenate([np.ones(len(inside)), counted.astype(np.float64)])
    trial = branches.trial(Drawn(which, arrival_s, lengths, whole, weights))

    def forecast(name: str, limits: Limits) -> Forecast:
        return branches.forecast(trial, name, {}, limits, UNTIL_S)

    said = forecast(policy, decision.limits)
    assert judged_alike(judged, said)
    # Another decision leaves no trace: each branch starts from the same arrays.
    other = forecast("density", LIMITS)
    assert forecast(policy, decision.limits) == said
    assert forecast("density", LIMITS) == other


def test_what_counts_more_is_worth_more_and_attained_alike():
    requests = [TraceRequest(0.0, 200, 20, "t0", "interactive", max_tokens=120)] * 2
    decision = Decision("me", 1, FOREVER_S, "fcfs", {}, LIMITS)
    branches = Branches(SMALL, SETTINGS, decision, [], requests)
    lengths = np.full(40, 100, np.int32)
    which, at_s, none = np.zeros(40, np.int64), np.zeros(40), np.zeros(0, np.int32)
    early = np.arange(40) < 5

    def share(weights: np.ndarray) -> Forecast:
        trial = branches.trial(Drawn(which, at_s, lengths, none, weights))
        return branches.forecast(trial, "fcfs", {}, LIMITS, 60.0)

    alike, first_more = share(np.ones(40)), share(np.where(early, 10.0, 1.0))
    assert 0.0 < alike.worth < first_more.worth < 1.0
    assert alike.attainment == first_more.attainment
    assert share(np.where(early, 10.0, 0.0)).attainment == 1.0

    # Groups are served together, and judged as if each had been served for itself.
    trial = branches.trial(Drawn(which, at_s, lengths, none, np.ones(40)))
    groups = [np.ones(40), np.where(early, 10.0, 1.0)]
    together = branches.forecast_groups(trial, "fcfs", {}, LIMITS, 60.0, groups)
    assert together == [alike, first_more]


def test_a_policy_that_does_not_exist_is_refused():
    decision = Decision("me", 1, FOREVER_S, "fcfs", {}, LIMITS)
    branches = Branches(SMALL, SETTINGS, decision, [], [])
    nothing = np.zeros(0, np.int32)
    trial = branches.trial(
        Drawn(np.zeros(0, np.int64), np.zeros(0), nothing, nothing, np.zeros(0))
    )
    with pytest.raises(ValueError, match="lottery"):
        branches.forecast(trial, "lottery", {}, LIMITS, 1.0)
    assert branches.forecast(trial, "edf", {}, LIMITS, 1.0) == Forecast(1.0, 1.0)


def test_what_is_put_off_has_its_price_where_more_comes_than_can_be_served():
    """Batch work with minutes left waits behind chats: free where there will be time for it."""

    def forecast(rate_rps: float) -> Forecast:
        count = int(20 * rate_rps)
        drawn = Drawn(
            np.zeros(count, np.int64), np.linspace(0.0, 20.0, count), np.full(count, 30, np.int32),
            np.full(400, 60, np.int32), np.ones(400 + count),
        )  # fmt: skip
        return branches.forecast(branches.trial(drawn), "edf", {}, LIMITS, 20.0)

    batch, chat = SLO(e2e_ms=240_000.0), SLO(ttft_ms=1000.0)
    inside = [ResidentRequest(f"b{i}", 0.0, "b", "batch", batch, 400, 60) for i in range(400)]
    requests = [TraceRequest(0.0, 400, 30, "c", "chat", max_tokens=30, slo=chat)]
    decision = Decision("me", 1, FOREVER_S, "edf", {}, LIMITS)
    branches = Branches(SMALL, SETTINGS, decision, inside, requests)
    calm, busy = forecast(4.0), forecast(14.0)
    assert calm.worth > 0.99
    assert busy.attainment > 0.9
    assert busy.worth < 0.6
