"""Does each formula weigh what it says it weighs? Keys alone, no queue."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import SLO, SLO_CLASSES
from serving.policies import POLICIES, PolicyContext, RequestView, complete_params
from tests.contracts.samples import known
from tests.serving.samples import view

PREFILL_S, DECODE_S = 0.001, 0.01  # per token


def key(
    name: str, one: RequestView, decode_s: float = DECODE_S, **params: float
) -> tuple[float, ...]:
    return POLICIES[name].key_of(
        one, PolicyContext(PREFILL_S, 0.0, complete_params(name, params), decode_s)
    )


def test_density_is_weighted_value_per_second():
    one = known(view(prompt_tokens=1000, weight=2.0), 100)
    assert key("density", one) == (-2.0 * 1800 / 2.0, 0.0)  # 1 s of prefill, 1 s of decoding
    assert key("density", replace(one, weight=3.0)) < key("density", one)


@given(
    st.sampled_from(("sjf", "edf", "fair", "srpt", "slide")), st.floats(0.0, 50.0),
    st.integers(1, 10**5), st.floats(0.01, 100.0),
)  # fmt: skip
def test_work_counts_by_weight(name, due_s, prompt, weight):
    """A request of weight w has the key of one of 1/w of the work; w 1 changes no bit."""
    kappa = {} if name == "srpt" else {"kappa": 7.0}
    one = known(view(arrival_s=due_s, deadline_s=due_s, prompt_tokens=prompt), 0)
    before = 0.0 if name == "srpt" else due_s
    at = PolicyContext(PREFILL_S, 1.0, complete_params(name, kappa), DECODE_S)
    work = kappa.get("kappa", 1.0) * (prompt * PREFILL_S)
    assert POLICIES[name].key_of(one, at) == (before + work, 0.0)
    weighed = POLICIES[name].key_of(replace(one, weight=weight), at)
    assert weighed == pytest.approx((before + work / weight, 0.0))


@pytest.mark.parametrize("name", ["fcfs", "priority", "laxity", "mlfq", "prefix", "tiered"])
def test_the_others_do_not_look_at_weights(name):
    one = known(view(prompt_tokens=1000, deadline_s=9.0), 100)
    assert key(name, replace(one, weight=0.1)) == key(name, one)


def test_edf_with_kappa_0_does_not_look_at_weights_either():
    one = view(deadline_s=9.0)
    assert key("edf", replace(one, weight=0.1)) == key("edf", one) == (9.0, 0.0)


def test_density_follows_the_price_of_decoding():
    prompt, answer = known(view(prompt_tokens=2000), 1), known(view(prompt_tokens=10), 200)
    assert key("density", answer, 0.001) < key("density", prompt, 0.001)
    assert key("density", prompt, 0.05) < key("density", answer, 0.05)


def test_density_without_tokens_or_costs_is_finite_and_gains_nothing():
    nothing = view(prompt_tokens=0)
    assert key("density", nothing) == (0.0, 0.0)
    assert key("density", view(prompt_tokens=1)) < key("density", nothing)


def test_srpt_counts_the_risk_of_a_long_answer_as_rho_says():
    sure, risky = known(view(), 300, 320), known(view(), 250, 900)
    assert key("srpt", risky, rho=0.0) < key("srpt", sure, rho=0.0)
    assert key("srpt", sure, rho=0.5) < key("srpt", risky, rho=0.5)
    assert key("srpt", risky, rho=1.0) == pytest.approx((0.1 + 9.0, 0.0))


@pytest.mark.parametrize("q90", [0.0, 100.0, math.inf, math.nan])
def test_srpt_without_a_usable_q90_goes_by_the_mean(q90):
    assert key("srpt", known(view(), 300, q90)) == pytest.approx((0.1 + 3.0, 0.0))


def test_srpt_does_not_age():
    young, old = known(view(arrival_s=1e6), 10), known(view(arrival_s=0.0), 11)
    assert key("srpt", young) < key("srpt", old)


@pytest.mark.parametrize(
    ("prompt", "level"), [(0, 0), (50, 0), (100, 0), (101, 1), (200, 1), (201, 2), (10**6, 3)]
)
def test_mlfq_is_joined_at_the_first_level_whose_quantum_covers_the_prefill(prompt, level):
    one = view(arrival_s=7.0, prompt_tokens=prompt)
    assert key("mlfq", one, quantum_s=0.1, levels=4) == (level, 7.0)


def test_mlfq_counts_the_decoding_that_a_preempted_request_has_had():
    fresh, preempted = view(), known(view(), 0, attained=50)  # 0.1 s and 0.6 s
    assert key("mlfq", fresh, quantum_s=0.1)[0] == 0
    assert key("mlfq", preempted, quantum_s=0.1)[0] == 3


def test_mlfq_with_one_level_is_first_come_first_served():
    sizes = (5000, 1, 300)
    many = [view(arrival_s=float(i), prompt_tokens=size) for i, size in enumerate(sizes)]
    assert sorted(many, key=lambda one: key("mlfq", one, levels=1)) == many


def test_prefix_lets_a_saved_second_pass_kappa_seconds():
    cached = known(view(arrival_s=10.0), 0, cached=1000)  # saves 1 s
    just_older, much_older = view(arrival_s=5.001), view(arrival_s=4.999)
    assert key("prefix", much_older, kappa=5) < key("prefix", cached, kappa=5)
    assert key("prefix", cached, kappa=5) < key("prefix", just_older, kappa=5)
    assert key("prefix", cached, kappa=0) == (10.0, 0.0)


@given(scale=st.floats(0.01, 1000.0), late_s=st.floats(0, 1e6))
def test_tiered_keeps_the_built_in_classes_apart_at_any_scale(scale, late_s):
    strict_first = ["interactive", "conversational", "document", "batch", "best_effort"]
    assert strict_first == list(SLO_CLASSES)
    # The stricter the class, the later its deadline here: the tier must decide alone.
    keys = [
        key("tiered", view(deadline_s=late_s - rank, slo=SLO_CLASSES[name].scaled(scale)))
        for rank, name in enumerate(strict_first)
    ]
    assert [one[0] for one in keys] == sorted({one[0] for one in keys})


def test_tiered_goes_by_deadline_within_a_tier():
    early, late = view(deadline_s=3.0, slo=SLO(3900)), view(deadline_s=4.0, slo=SLO(1100))
    assert key("tiered", early) < key("tiered", late)


def test_tiered_puts_any_promise_before_none():
    none, tpot, e2e = view(), view(slo=SLO(tpot_ms=30)), view(slo=SLO(e2e_ms=1e9))
    assert key("tiered", tpot)[0] == key("tiered", e2e)[0] < key("tiered", none)[0]


def test_edf_lets_a_prompt_pass_that_is_due_less_than_kappa_times_the_saved_prefill_later():
    long, short = view(deadline_s=5.0, prompt_tokens=1000), view(deadline_s=8.0, prompt_tokens=500)
    assert key("edf", long) < key("edf", short), "plain deadline order"
    assert key("edf", long, kappa=5.9) < key("edf", short, kappa=5.9)
    assert key("edf", short, kappa=6.1) < key("edf", long, kappa=6.1)


@given(due_s=st.floats(), prompt=st.integers(0, 10**6), kappa=st.floats(0, 1000))
def test_fair_orders_a_tenants_requests_as_edf_does(due_s, prompt, kappa):
    one = view(deadline_s=0.0 if math.isnan(due_s) else due_s, prompt_tokens=prompt)
    assert key("fair", one, kappa=kappa) == key("edf", one, kappa=kappa)


def test_what_the_queue_and_the_guardrails_must_know_of_each_policy():
    def those(flag: str) -> set[str]:
        return {name for name, policy in POLICIES.items() if getattr(policy, flag)}

    assert those("demotes") == {"edf", "laxity", "density", "fair", "slide"}
    assert those("needs_lengths") == {"density", "srpt"}
    assert those("shares") == {"fair"}
    assert those("follows_load") == {"slide"}
    assert those("starvation_free") == {"fcfs"}
