"""Conformance of every policy in the registry. A new policy joins with one line of BY_HAND."""

import ast
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import policies
from serving.contracts import SLO
from serving.hook.queue import PolicyQueue
from serving.policies import POLICIES, PolicyContext, RequestView, complete_params
from tests.contracts.samples import known
from tests.serving.samples import LightRequest, view

NAMES = sorted(POLICIES)
PREFILL_S_PER_TOKEN, DECODE_S_PER_TOKEN = 0.01, 0.02

# name, arrival, deadline, prompt tokens (prefill: 10 s, 15 s, 1 s, 0.1 s), priority;
# then mean and q90 of the answer's length, and cached tokens
STAGGERED = [
    known(view("a", 0.0, 100.0, 1000, 5, tenant="globex", slo=SLO(ttft_ms=100_000)), 50, 50),
    known(view("b", 1.0, 20.0, 1500, 0, slo=SLO(e2e_ms=21_000)), 100, 100, 10),
    known(view("c", 2.0, 10.0, 100, 1, slo=SLO(ttft_ms=8_000)), 200, 1000),
    known(view("d", 3.0, 30.0, 10, 1, slo=SLO(ttft_ms=27_000)), 300, 300, 200),
]
# policy -> load -> the order of STAGGERED that its name promises
BY_HAND: dict[str, dict[float, str]] = {
    "fcfs": {0.0: "abcd"},
    "priority": {0.0: "bcda"},
    "sjf": {0.0: "dcab"},  # 3+20*0.1, 2+20*1, 0+20*10, 1+20*15
    "edf": {0.0: "cbda"},  # 10, 20, 30, 100
    "laxity": {0.0: "bcda"},  # 20-15, 10-1, 30-0.1, 100-10
    "density": {0.0: "dcba"},  # 2410/6.1, 1700/5, 2300/17, 1400/11
    "srpt": {0.0: "dacb"},  # 0.1+6, 10+1, 1+0.02*(200+0.5*800), 15+2
    "mlfq": {0.0: "dcab"},  # levels 3 (0.1 s of 0.02*2^3), 6, and twice the last, 7
    "fair": {0.0: "cabd"},  # c costs acme 100 tokens, so it is globex's turn; then as edf
    "prefix": {0.0: "dbac"},  # 3-20*2, 1-20*0.1, 0, 2
    "tiered": {0.0: "cdab"},  # targets 8 s, 27 s, 100 s: three tiers; then end to end
    "slide": {0.0: "cbda", 0.5: "cdab", 1.0: "dcab"},  # as edf, 16 17.5 150 160.5, as sjf
}
ODD = [
    view("no-slo"),
    view("no-tenant", 1.0, 2.0, tenant="", slo_class=""),
    view("no-tokens", 1.0, 2.0, 0),
    view("huge", 1.0, 2.0, 10**9),
    view("huge, no slo", 1.0, math.inf, 10**9),
    view("weightless", 1.0, 2.0, 100, 0, 0.0),
    view("in debt", 1.0, 2.0, 100, 0, -1.0),
    view("urgent", 1.0, 2.0, 100, -(10**9)),
    view("negative", 1.0, 2.0, -100),
    view("due long ago", 1.0, -1e9),
    view("due for ever ago", 1.0, -math.inf),
    view("unix time", 1.8e9, 1.8e9 + 0.5, slo=SLO(500, 30)),
    *(view(f"due in {ms} ms", slo=SLO(ms)) for ms in (0.0, -5.0, 1e-300, 1e300, math.inf)),
    view("no number", slo=SLO(math.nan, math.nan, math.nan)),
    view("tpot only", slo=SLO(tpot_ms=30)),
    known(view("endless"), math.inf, math.inf),
    known(view("endless, no prompt", 1.0, 2.0, 0), math.inf, math.inf),
    known(view("unknown"), math.nan, math.nan),
    known(view("less than none"), -1e9, -1e9, -(10**9), -(10**9)),
    known(view("a book", 1.0, 2.0, 10**9), 1e9, 1e9, 10**9),
]
PREEMPTED = known(view("a book, preempted"), 1e9, 1e9, 0, 10**9)


def context(name: str, load: float = 0.0, params: dict[str, float] | None = None) -> PolicyContext:
    complete = complete_params(name, params or {})
    return PolicyContext(PREFILL_S_PER_TOKEN, load, complete, DECODE_S_PER_TOKEN)


def queue_of(views: list[RequestView]) -> PolicyQueue:
    def never(policy: str, error: Exception) -> None:
        raise AssertionError(f"{policy} raised {error!r}")

    queue = PolicyQueue(lambda request: request.view, 900.0, never)
    for one in views:
        queue.add_request(LightRequest(one))
    return queue


def served(name: str, views: list[RequestView], load: float = 0.0) -> list[str]:
    queue = queue_of(views)
    queue.set_load(load, PREFILL_S_PER_TOKEN)
    queue.set_policy(name, {}, PREFILL_S_PER_TOKEN, DECODE_S_PER_TOKEN)
    return [queue.pop_request().request_id for _ in views]


def corners(name: str) -> list[dict[str, float]]:
    """Every combination of each parameter's lowest, default and highest value."""
    policy = POLICIES[name]
    values = [
        {low, policy.default_params[key], high} for key, (low, high) in policy.param_bounds.items()
    ]
    return [
        dict(zip(policy.param_bounds, combination, strict=True))
        for combination in itertools.product(*map(sorted, values))
    ]


def test_every_policy_has_a_case_checked_by_hand():
    assert sorted(BY_HAND) == NAMES


@pytest.mark.parametrize(("name", "load"), [(n, at) for n in NAMES for at in BY_HAND.get(n, {})])
def test_does_what_its_name_says(name, load):
    assert "".join(served(name, STAGGERED, load)) == BY_HAND[name][load]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fcfs"])
def test_differs_from_first_come_first_served(name):
    assert served(name, STAGGERED) != served("fcfs", STAGGERED)


views = st.lists(  # of one tenant: what `fair` does between tenants is tested on its own
    st.builds(
        known,
        st.builds(
            view,
            arrival_s=st.floats(0, 100),
            deadline_s=st.floats(0, 200) | st.just(math.inf),
            prompt_tokens=st.integers(0, 10_000),
            priority=st.integers(-5, 5),
            weight=st.floats(0.001, 10),
            slo=st.builds(SLO, st.none() | st.floats(1, 1e5), st.none() | st.just(30.0)),
        ),
        answer=st.floats(0, 2000),
        q90=st.floats(0, 4000) | st.just(math.inf),
        cached=st.integers(0, 5000),
    ),
    min_size=1,
    max_size=12,
).map(lambda many: [replace(one, request_id=f"r{i}") for i, one in enumerate(many)])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(many=views, load=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_order_is_total_deterministic_and_by_key(name, many, load):
    at = context(name, load)
    by_key = sorted(many, key=lambda one: POLICIES[name].key_of(one, at))
    assert served(name, many, load) == [one.request_id for one in by_key]
    for one in many:
        assert POLICIES[name].key_of(one, at) == POLICIES[name].key_of(one, at)


@pytest.mark.parametrize(("old", "new"), itertools.permutations(NAMES, 2))
def test_a_switch_keeps_every_request_once_and_orders_anew(old, new):
    queue = queue_of(STAGGERED[:2])
    queue.set_policy(old, {}, PREFILL_S_PER_TOKEN, DECODE_S_PER_TOKEN)
    for one in STAGGERED[2:]:
        queue.add_request(LightRequest(one))
    queue.set_policy(new, {}, PREFILL_S_PER_TOKEN, DECODE_S_PER_TOKEN)
    assert len(queue) == len(STAGGERED)
    order = "".join(queue.pop_request().request_id for _ in STAGGERED)
    assert order == BY_HAND[new][0.0]
    assert not queue


@pytest.mark.parametrize("load", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_odd_requests_get_comparable_keys(name, rate, load):
    for params in corners(name):
        at = PolicyContext(rate, load, complete_params(name, params), 10 * rate)
        keys = [POLICIES[name].key_of(one, at) for one in [*ODD, PREEMPTED, *STAGGERED]]
        assert not any(math.isnan(part) for key in keys for part in key), "NaN has no order"
        for one, other in itertools.combinations(keys, 2):
            assert (one < other) + (one == other) + (one > other) == 1


@pytest.mark.parametrize("name", NAMES)
def test_odd_requests_are_all_served(name):
    assert sorted(served(name, ODD)) == sorted(one.request_id for one in ODD)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_outside_their_bounds_are_refused_by_name(name):
    policy = POLICIES[name]
    assert set(policy.default_params) == set(policy.param_bounds)
    assert complete_params(name, {}) == policy.default_params
    for key, (low, high) in policy.param_bounds.items():
        assert low <= policy.default_params[key] <= high
        assert complete_params(name, {key: low})[key] == low
        assert complete_params(name, {key: high})[key] == high
        for value in (low - 1.0, high + 1.0, math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=rf"{name}\.{key}"):
                complete_params(name, {key: value})
    with pytest.raises(ValueError, match=f"'{name}' has no parameter 'nope'"):
        complete_params(name, {"nope": 1.0})


def test_a_policy_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"'nope' does not exist; there are .*fcfs"):
        complete_params("nope", {})


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_in_a_line_each_when_it_helps_and_hurts(name):
    policy = POLICIES[name]
    assert policy.name == name
    for line in (policy.card.helps, policy.card.hurts):
        assert line == line.strip() != ""
        assert "\n" not in line


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_formula_source_and_regime(name):
    text = type(POLICIES[name]).__doc__ or ""
    assert text.startswith("Key")
    assert "\n    Source: " in text
    assert "\n    Regime: " in text


def test_the_docs_list_every_policy_and_which_demote():
    text = (Path(policies.__file__).parents[2] / "docs" / "how" / "execution.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|\n]+\| (yes |)\|$", text, flags=re.M)
    assert dict(rows) == {n: "yes " if POLICIES[n].demotes else "" for n in POLICIES}


def test_no_policy_needs_vllm():
    for path in Path(policies.__file__).parent.glob("*.py"):
        imported = [
            alias.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert [name for name in imported if name.split(".")[0] == "vllm"] == [], path.name
