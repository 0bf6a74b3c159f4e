"""Arbitrary short states for property tests, and what calls make of the limits."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from hmas_agents.agents.calls import RuleCall
from hmas_agents.states import ShortState
from serving.contracts import Limits
from serving.contracts.rules import BY_TOOL
from tests.agents.states import short_state

SHEDDABLE = ("batch", "best_effort")
SHARES = st.one_of(st.none(), st.floats(0, 1))
SECONDS = st.one_of(st.none(), st.floats(-60, 60))
TENANTS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0, 1))
LIMITS = st.builds(
    Limits,
    max_active_requests=st.integers(1, 64),
    token_budget=st.integers(1, 2048),
    long_prefill_threshold=st.sampled_from([0, 128, 1024]),
    prefill_share=st.sampled_from([0.0, 0.2, 0.35]),
    follow_slack=st.booleans(),
    tenant_buckets=st.booleans(),
    pace_decodes=st.booleans(),
    shed=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
STATES = st.builds(
    short_state,
    waiting=st.integers(0, 500),
    hopeless_share=st.floats(0, 1),
    running=st.integers(0, 64),
    decoding=st.integers(0, 64),
    prefilling=st.integers(0, 8),
    queued_prefill_s=st.floats(0, 100),
    p10_laxity_s=SECONDS,
    decode_slack_p10_s=SECONDS,
    preemptions_per_s=st.one_of(st.just(0.0), st.floats(0, 5)),
    tpot_miss_share=SHARES,
    ttft_miss_share=SHARES,
    attainment_by_class=st.dictionaries(st.sampled_from(["interactive", "batch"]), st.floats(0, 1)),
    attainment_by_tenant=TENANTS,
    offered_by_tenant=TENANTS,
    requests_by_tenant=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 99)),
    weight_by_tenant=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]), st.floats(0.01, 100)
    ),
    sheddable=st.sampled_from([(), SHEDDABLE]),
    sheddable_waiting=st.integers(0, 50),
    sheddable_in_vain_share=st.floats(0, 1),
    in_vain_share=st.floats(0, 1),
    step_base_s=st.floats(0, 0.1),
    decode_s=st.one_of(st.just(0.0), st.floats(1e-6, 0.01)),
    tpot_targets=st.lists(
        st.tuples(st.floats(1e-3, 1.0), st.floats(0.01, 0.3)), max_size=3, unique_by=lambda t: t[0]
    ).map(lambda targets: tuple(sorted(targets))),
    limits=LIMITS,
)


def asked(call: RuleCall) -> float:
    """The value that a call wants in force."""
    value: float = call["args"][BY_TOOL[call["name"]].argument]
    return value


def after(limits: Limits, calls: Iterable[RuleCall]) -> Limits:
    """The limits with the calls in force."""
    changes = {BY_TOOL[call["name"]].name: asked(call) for call in calls}
    return replace(limits, **changes)  # type: ignore[arg-type]


def with_limits(state: ShortState, calls: Iterable[RuleCall]) -> ShortState:
    """The same situation under the limits that the calls leave."""
    return replace(state, limits=after(state.limits, calls))
