"""Does the compiled engine decide as the hook does inside vLLM's own scheduler?

Equal to the last bit: each step, outcomes, snapshots, answers, journal and the requests inside.
`pytest tests/serving/engines -s` prints how much was compared; HMAS_EXAMPLES sets the random runs,
and a real trace is compared where HMAS_TRACES names its folder.
"""

import gc
import os
import weakref
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from evals.requests.azure_files import find_azure
from evals.requests.readers import read_azure
from serving.contracts import Contract, TenantTerms, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.rules import COUNTERS, RULES
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.policies import POLICIES
from tests.serving.engines.both_engines import drawn, machine, that_fit
from tests.serving.engines.both_hooked import (
    HookedCase,
    HookedStory,
    Plain,
    Promise,
    by_the_core,
    by_the_hook,
    difference,
    with_owners,
)
from tests.serving.engines.hooked_cases import START_RULES, decide, hooked_cases
from tests.serving.samples import sessions, shares

compared = Counter[str]()


def hold(case: HookedCase) -> HookedStory:
    """Both engines tell the same story, and the hook did not fall back to stock."""
    expected = by_the_hook(case)
    assert difference(expected, by_the_core(case)) == ""
    assert expected.seen[-1].snapshot.policy_errors == 0
    compared["examples"] += 1
    compared["steps"] += len(expected.steps)
    compared["requests"] += len(expected.outcomes)
    compared["preemptions"] += expected.preemptions
    compared["cached_tokens"] += sum(one.cached_tokens for one in expected.outcomes)
    compared["looks"] += len(expected.seen)
    compared.update(expected.rules)
    return expected


@pytest.fixture(scope="module", autouse=True)
def tell():
    yield
    print("\ncompared with the hook inside vLLM's scheduler:", dict(compared))


@settings(
    max_examples=int(os.environ.get("HMAS_EXAMPLES", "40")), deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(hooked_cases())
def test_random_decisions_on_random_workloads_and_machines(case):
    hold(case)


TIGHT = machine(120, 24, 300)
ROOMY = machine(3000, 24, 700)
SHARING = machine(600, 24, 700, prefix_caching=True)
QUICK = {"quick": ClassTerms(ttft_ms=1500.0, tpot_ms=14.0)}
TERMS = shares({"t0": 3.0, "t1": 1.0}, {"t2": 0.3}).model_copy(update={"classes": QUICK})
BOUND = EngineSettings(contract=TERMS, max_wait_s=4.0, bucket_s=1.0)


def busy(profile, count=90, seed=5, topics=0):
    """More than the machine can serve, of three tenants."""
    return with_owners(that_fit(drawn(seed, count, 30.0, 300, 50, topics), profile), 3)


@pytest.mark.parametrize("profile", [TIGHT, SHARING], ids=["tight", "prefixes"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_alone_and_then_with_all_rules(policy, profile):
    acts = tuple(decide(profile, policy, rules) for rules in (START_RULES, RULES))
    requests = busy(profile, topics=2)
    case = HookedCase(profile, requests, BOUND, (decide(profile, policy, ()),), acts, 0.8)
    told = hold(case)
    assert {one.policy for one in told.outcomes} == {policy}
    assert len({one.epoch for one in told.outcomes}) == 3, "each decision admits some"


@pytest.mark.parametrize("profile", [TIGHT, ROOMY, SHARING], ids=["tight", "roomy", "prefixes"])
def test_every_rule_alone(profile):
    acted, requests = Counter[str](), busy(profile, topics=2)
    for rule in RULES:
        first = decide(profile, "edf", [rule])
        if rule == "balance":  # of what slack leaves
            first = decide(profile, "edf", ["slack"], prefill_share=0.6)
        acted.update(hold(HookedCase(profile, requests, BOUND, (first,))).rules)
    idle = {name for name in COUNTERS if not acted[name]}
    assert not idle or profile is not TIGHT, "else nothing is compared"


@pytest.mark.parametrize("policy", ["fcfs", "edf:10", "prefix", "fair"])
def test_turns_of_chats_that_share_prefixes_and_evict_each_other(policy):
    profile = machine(700, 32, 1024, prefix_caching=True)
    name, _, kappa = policy.partition(":")
    first = replace(
        decide(profile, name, START_RULES), params={"kappa": float(kappa)} if kappa else {}
    )
    hold(HookedCase(profile, tuple(sessions(150, 25.0, seed=3)), BOUND, (first,)))


def test_a_new_contract_begins_the_count_of_refusals_anew():
    contract = Contract(classes={"batch": ClassTerms(sheddable=True)})
    requests = [replace(one, slo_class="batch") for one in busy(ROOMY, count=40)]
    first, acts = decide(ROOMY, "edf", (), shed=0.3), (Promise(contract),) * 3
    case = HookedCase(
        ROOMY, tuple(requests), EngineSettings(contract=contract), (first,), acts, tick_s=0.2
    )
    assert 0 < sum(one.finish == "rejected" for one in hold(case).outcomes) < 12


def test_a_request_that_cannot_be_served_takes_no_lane():
    """Else the third tenant shares that of all others, and its floor begins with another debt."""
    floor = Contract(tenants={"late": TenantTerms(floor=0.3)})
    sent = [
        (0.0, 3000, "absent"), (0.0, 836, "early"), (0.01, 700, "late"), (0.02, 887, "early"),
        (0.04, 700, "late"), (0.04, 700, "early"), (0.07, 802, "late"),
    ]  # fmt: skip
    requests = tuple(TraceRequest(at_s, prompt, 1, tenant) for at_s, prompt, tenant in sent)
    profile = machine(200, 1, 32, max_model_len=900)
    case = HookedCase(
        profile, requests, EngineSettings(max_tenants=2), acts=(Promise(floor),), tick_s=0.04
    )
    assert hold(case).outcomes[0].finish == "rejected"


@pytest.mark.parametrize("policy", ["fair", "edf"])
def test_a_lane_that_was_left_goes_to_the_next_tenant(policy):
    """Ten tenants that come one after the other share two lanes, and that of all others."""
    requests = that_fit(drawn(5, 60, 30.0, 300, 20, 0), ROOMY)
    visits = tuple(
        replace(one, tenant=f"t{i // 6}", arrival_s=one.arrival_s + i // 12)
        for i, one in enumerate(requests)
    )
    late = (
        replace(one, tenant=f"t{i % 5}", arrival_s=9.0 + 0.01 * i)
        for i, one in enumerate(requests[:30])
    )
    settings = EngineSettings(max_tenants=2, bucket_s=0.05)
    acts = (Promise(shares({"t2": 3.0}, {"t4": 0.3})),)
    first = decide(TIGHT, policy, ("buckets",))
    hold(HookedCase(TIGHT, (*visits, *late), settings, (first,), acts, tick_s=2.0))


def test_refusals_are_of_the_decision_that_shed_them():
    """Also those that nobody has read from the journal when the next decision comes."""
    profile, contract = ROOMY, Contract(classes={"batch": ClassTerms(sheddable=True)})
    acts = (decide(profile, "edf", (), shed=0.5), decide(profile, "sjf", ()), Plain("release"))
    case = HookedCase(
        profile, busy(profile), EngineSettings(contract=contract),
        (decide(profile, "slide", (), shed=1.0),), acts, tick_s=0.5,
    )  # fmt: skip
    told = hold(case)
    refused = [
        one for look in told.seen for one in look.page.outcomes if one.finish == "rejected"
    ]
    assert {one.policy for one in refused} == {"slide", "edf"}


def test_the_arrays_of_an_engine_go_with_it():
    """At once: each has megabytes, and many are made before Python looks for circles."""
    gc.disable()
    try:
        engine = CompiledEngine(ROOMY, EngineSettings())
        decide(ROOMY, "edf", START_RULES)(engine)
        served = engine.run(busy(ROOMY))
        arrays = weakref.ref(engine.hook.core.requests)
        del engine
        assert served
        assert arrays() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("rate", [1.0, 6.0])
@pytest.mark.parametrize("kv_blocks", [25_749, 2_000], ids=["roomy", "tight"])
def test_the_azure_conversation_trace_under_the_start_rules(kv_blocks, rate):
    path = find_azure("azure-conv")
    if path is None:
        pytest.skip("HMAS_TRACES names no folder with the Azure trace")
    profile = machine(kv_blocks, 256, 2048)
    first = read_azure(path).requests[:600]
    requests = with_owners(
        [replace(one, arrival_s=(one.arrival_s - first[0].arrival_s) / rate) for one in first], 3
    )
    acts = (decide(profile, "edf", RULES), decide(profile, "slide", START_RULES))
    hold(HookedCase(profile, requests, BOUND, (decide(profile, "edf", START_RULES),), acts, 20.0))
