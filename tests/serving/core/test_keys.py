"""Does the core give each request the key that its policy's own file gives it?"""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import SLO
from serving.core.keys import NUMBERS, key_of
from serving.core.state import PARAMETERS, Core, fill, new_core
from serving.policies import POLICIES, Policy, PolicyContext, RequestView
from serving.policies.base import Key, seconds
from tests.contracts.samples import known
from tests.serving.samples import view

NAMES = sorted(POLICIES)
some = st.floats(allow_nan=False)
targets = st.none() | st.floats()
views = st.builds(
    known,
    st.builds(
        view, arrival_s=st.floats(0, 2e9), deadline_s=some, prompt_tokens=st.integers(-9, 10**9),
        priority=st.integers(-(2**63), 2**64 - 1), weight=st.floats(-1, 1e6),
        slo=st.builds(SLO, targets, targets, targets),
    ),
    answer=st.floats(), q90=st.floats(), cached=st.integers(-9, 10**9),
    attained=st.integers(0, 10**6),
)  # fmt: skip


@st.composite
def contexts(draw: st.DrawFn, policy: Policy) -> PolicyContext:
    """Parameters inside their bounds, costs and load as an engine may have them."""
    params = {name: draw(st.floats(*bounds)) for name, bounds in policy.param_bounds.items()}
    rate, decode_s = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    return PolicyContext(rate, draw(st.floats(0, 1)), params, decode_s)


def core_with(one: RequestView, at: PolicyContext, policy: Policy) -> Core:
    """The request in row 1, `policy` in force."""
    core, slo = new_core(2, 1), one.slo
    fill(
        core, 1, one.arrival_s, one.deadline_s, seconds(slo.ttft_ms), seconds(slo.tpot_ms),
        seconds(slo.e2e_ms), one.prompt_tokens, one.cached_tokens, one.attained_tokens,
        float(one.priority), float(one.weight), float(one.predicted_output_tokens),
        float(one.q90_output_tokens), 0,
    )  # fmt: skip
    engine = core.engine
    engine["policy"], engine["load"] = NUMBERS[policy.name], at.load
    engine["prefill_s_per_token"] = at.prefill_s_per_token
    engine["decode_s_per_token"] = at.decode_s_per_token
    for name, value in at.params.items():
        engine[name] = value
    return core


def bits(key: Key) -> bytes:
    """Equal for equal numbers only; of zeros, both signs."""
    return struct.pack("dd", *key)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=300)
@given(data=st.data(), one=views)
def test_a_compiled_key_is_the_policys_own_bit_for_bit(name, data, one):
    policy = POLICIES[name]
    at = data.draw(contexts(policy))
    core = core_with(one, at, policy)
    expected = policy.key_of(one, at)
    found = key_of(core, 1, one.prompt_tokens)
    if any(map(math.isnan, expected)):
        assert (found, core.engine["broken"][0]) == ((0.0, 0.0), 1)
    else:
        assert (bits(found), core.engine["broken"][0]) == (bits(expected), 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fcfs"])
def test_every_policy_of_the_registry_has_its_key_in_the_core(name):
    """One that was not added to `core/keys.py` would be first come, first served there."""
    policy, rate = POLICIES[name], 0.01
    at = PolicyContext(rate, 0.5, policy.default_params, 0.02)
    short = known(view("r", 1.0, 20.0, 10, slo=SLO(ttft_ms=19_000)), 5, 9, cached=90)
    long = known(view("s", 2.0, 90.0, 2000, 7, slo=SLO(e2e_ms=88_000)), 500, 900)
    keys = {key_of(core_with(one, at, policy), 1, one.prompt_tokens) for one in (short, long)}
    assert len(keys) == 2, f"add {name} to key_of in serving/core/keys.py"


def test_the_core_has_a_field_for_every_parameter_of_every_policy():
    assert set(PARAMETERS) == {name for one in POLICIES.values() for name in one.default_params}


def test_the_tokens_that_are_left_count_not_those_that_it_came_with():
    one, policy = view("r", 0.0, 9.0, 1000), POLICIES["laxity"]
    core = core_with(one, PolicyContext(0.01, 0.0, {}), policy)
    assert key_of(core, 1, 100) == (9.0 - 1.0, 0.0)


@pytest.mark.parametrize("name", [n for n in NAMES if "kappa" in POLICIES[n].param_bounds])
def test_a_key_that_is_no_number_is_noted_and_replaced(name):
    at = PolicyContext(0.01, 0.5, {"kappa": math.nan})
    core = core_with(view("r", 1.0, 2.0), at, POLICIES[name])
    assert key_of(core, 1, 100) == (0.0, 0.0)
    assert core.engine["broken"][0] == 1
