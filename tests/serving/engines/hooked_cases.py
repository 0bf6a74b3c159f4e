"""Which workloads, machines, contracts and decisions do random cases of the hook have?"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from serving.contracts import SLO, Contract, Limits, TenantPart, TenantTerms
from serving.contracts.contract import ClassTerms
from serving.contracts.rules import RULES, with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.policies import POLICIES
from tests.serving.engines.both_engines import drawn, machine, that_fit
from tests.serving.engines.both_hooked import (
    Act,
    Decide,
    Divide,
    HookedCase,
    Plain,
    Promise,
    Served,
    with_owners,
)

START_RULES = ("slack", "serial", "triage")


@st.composite
def machines(draw: st.DrawFn) -> EngineProfile:
    """Roomy or too small for what runs, with and without prefix caching."""
    return machine(
        draw(st.sampled_from((20, 60, 200, 2000))), draw(st.sampled_from((1, 3, 8, 24))),
        draw(st.sampled_from((32, 200, 700))), block_size=draw(st.sampled_from((16, 48))),
        prefix_caching=draw(st.booleans()), max_model_len=draw(st.sampled_from((900, 3000))),
    )  # fmt: skip


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Weights, floors, sheddable classes, and a class of its own."""
    weights = draw(st.lists(st.sampled_from((0.25, 1.0, 3.0)), max_size=3))
    floors = draw(st.lists(st.sampled_from((0.0, 0.1, 0.3)), min_size=3, max_size=3))
    tenants = {
        f"t{i}": TenantTerms(weight=weight, floor=floors[i]) for i, weight in enumerate(weights)
    }
    shed = draw(st.booleans())
    of_classes = st.sampled_from((1.0, 1.0, 0.3, 4.0))
    classes = {
        "quick": ClassTerms(ttft_ms=draw(st.sampled_from((60.0, 400.0))), tpot_ms=12.0,
                            itl_ms=draw(st.sampled_from((None, 20.0))), weight=draw(of_classes)),
        "batch": ClassTerms(e2e_ms=draw(st.sampled_from((3_000.0, 60_000.0))), sheddable=shed,
                            itl_ms=draw(st.sampled_from((None, 11.0, 60.0)))),
        "document": ClassTerms(sheddable=draw(st.booleans()), weight=draw(of_classes)),
    }  # fmt: skip
    return Contract(tenants=tenants, classes=classes)


@st.composite
def decisions(draw: st.DrawFn, profile: EngineProfile) -> Decide:
    """Any policy with any parameters, any rules, any limits; some end before the run does."""
    policy = draw(st.sampled_from(tuple(POLICIES)))
    params = {
        name: draw(st.floats(low, min(high, 20.0)))
        for name, (low, high) in POLICIES[policy].param_bounds.items()
        if draw(st.booleans())
    }
    rules = draw(
        st.one_of(
            st.just(()), st.just(START_RULES), st.just(tuple(RULES)),
            st.lists(st.sampled_from(tuple(RULES)), unique=True),
        )
    )  # fmt: skip
    limits = with_rules(Limits(profile.max_active_requests, profile.token_budget), rules)
    changes: dict[str, st.SearchStrategy[Any]] = {
        "max_active_requests": st.integers(1, profile.max_active_requests + 1),
        "token_budget": st.integers(1, profile.token_budget),
        "long_prefill_threshold": st.sampled_from((0, 7, 64)),
        "max_partial_prefills": st.integers(0, 3),
        "prefill_share": st.sampled_from((0.2, 0.6)),
        "demote_hopeless": st.sampled_from((None, True, False)),
    }
    chosen = draw(st.lists(st.sampled_from(tuple(changes)), unique=True, max_size=4))
    drawn_limits: dict[str, Any] = {name: draw(changes[name]) for name in chosen}
    shed = draw(st.sampled_from((0.0, 0.0, 0.3, 1.0)))
    limits = replace(limits, shed=shed, **drawn_limits)
    ttl_s = draw(st.sampled_from((0.15, 0.7, 60.0, 60.0)))
    return Decide(policy, params, limits, ttl_s, draw(st.sampled_from(("me", "me", "person:ann"))))


def decide(
    profile: EngineProfile, policy: str, rules: Iterable[str], ttl_s: float = 60.0, **changes: Any
) -> Decide:
    """A decision for this machine: all of its limits, but for the changes."""
    limits = with_rules(Limits(profile.max_active_requests, profile.token_budget), rules)
    return Decide(policy, {}, replace(limits, **changes), ttl_s)


def acts(profile: EngineProfile) -> st.SearchStrategy[Act]:
    """What a controller or a person does between two steps; mostly decisions."""
    names = ("renew", "release", "stop", "start", "look")
    plain = st.sampled_from([Plain(name) for name in names])
    parts = st.builds(TenantPart, st.sampled_from((0.0, 0.1, 1.0, 3.0)))
    divided = st.dictionaries(st.sampled_from(("t0", "t1", "t2")), parts, max_size=3).map(Divide)
    return st.one_of(
        decisions(profile), decisions(profile), contracts().map(Promise), divided, plain
    )


@st.composite
def hooked_cases(draw: st.DrawFn) -> HookedCase:
    """A whole run."""
    profile = draw(machines())
    scale = profile.kv_blocks * profile.block_size
    requests = drawn(
        draw(st.integers(0, 10_000)), draw(st.integers(1, 36)),
        draw(st.sampled_from((5.0, 30.0, 300.0))),
        max(2, min(scale // draw(st.integers(3, 12)), 900)), draw(st.sampled_from((2, 20, 80))),
        topics=draw(st.sampled_from((0, 1, 2))),
    )  # fmt: skip
    requests = with_owners(requests, draw(st.integers(1, 5)))
    if draw(st.booleans()):  # some have targets of their own
        own = SLO(ttft_ms=150.0, e2e_ms=2_000.0, itl_ms=30.0)
        requests = tuple(
            replace(one, slo=own) if i % 5 == 0 else one for i, one in enumerate(requests)
        )
    until_s = draw(st.sampled_from((None, None, 0.7, 4.0)))
    if until_s is None:
        requests = that_fit(requests, profile)
    settings = EngineSettings(
        contract=draw(contracts()), max_wait_s=draw(st.sampled_from((0.3, 2.0, 900.0))),
        bucket_s=draw(st.sampled_from((0.05, 1.0, 10.0))),
        slo_scale=draw(st.sampled_from((0.3, 1.0, 3.0))),
        default_policy=draw(st.sampled_from(("fcfs", "fcfs", "edf"))),
        max_tenants=draw(st.sampled_from((2, 64, 64))),
    )  # fmt: skip
    return HookedCase(
        profile, requests, settings, tuple(draw(st.lists(acts(profile), max_size=2))),
        tuple(draw(st.lists(acts(profile), max_size=5))), draw(st.sampled_from((0.04, 0.3, 1.1))),
        until_s, draw(st.sampled_from((5, 5000))), draw(seen_answers()),
    )  # fmt: skip


def seen_answers() -> st.SearchStrategy[tuple[Served, ...]]:
    """Answers that the length model knows before the run: none, or enough to predict by."""
    known = tuple(
        (f"t{i % 3}", 40 * (1 + i % 7), 40 + 120 * (i % 2), 1 + i * i % 37) for i in range(120)
    )
    return st.sampled_from(((), known))
