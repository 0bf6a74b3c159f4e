"""Conformance of every policy in the registry. A new policy joins with one line of BY_HAND."""

import ast
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import policies
from serving.contracts import SLO
from serving.policies import POLICIES, PolicyContext, RequestView, complete_params
from serving.queue import PolicyQueue
from tests.serving.samples import LightRequest, view

NAMES = sorted(POLICIES)
PREFILL_S_PER_TOKEN = 0.01
# name, arrival, deadline, prompt tokens (prefill: 10 s, 15 s, 1 s, 0.1 s), priority
STAGGERED = [
    view("a", 0.0, 100.0, 1000, 5),
    view("b", 1.0, 20.0, 1500, 0),
    view("c", 2.0, 10.0, 100, 1),
    view("d", 3.0, 30.0, 10, 1),
]
# policy -> load -> the order of STAGGERED that its name promises
BY_HAND: dict[str, dict[float, str]] = {
    "fcfs": {0.0: "abcd"},
    "priority": {0.0: "bcda"},
    "sjf": {0.0: "dcab"},  # 3+20*0.1, 2+20*1, 0+20*10, 1+20*15
    "edf": {0.0: "cbda"},  # 10, 20, 30, 100
    "laxity": {0.0: "bcda"},  # 20-15, 10-1, 30-0.1, 100-10
    "slide": {0.0: "cbda", 0.5: "cdab", 1.0: "dcab"},  # as edf, 16 17.5 150 160.5, as sjf
}
ODD = [
    view("no-slo"),
    view("no-tenant", 1.0, 2.0, tenant="", slo_class=""),
    view("no-tokens", 1.0, 2.0, 0),
    view("huge", 1.0, 2.0, 10**9),
    view("huge, no slo", 1.0, math.inf, 10**9),
    view("weightless", 1.0, 2.0, 100, 0, 0.0),
    view("urgent", 1.0, 2.0, 100, -(10**9)),
    view("due long ago", 1.0, -1e9),
    view("unix time", 1.8e9, 1.8e9 + 0.5, slo=SLO(500, 30)),
]


def context(name: str, load: float = 0.0, params: dict[str, float] | None = None) -> PolicyContext:
    return PolicyContext(PREFILL_S_PER_TOKEN, load, complete_params(name, params or {}))


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
    queue.set_policy(name, {}, PREFILL_S_PER_TOKEN)
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


views = st.lists(
    st.builds(
        view,
        arrival_s=st.floats(0, 100),
        deadline_s=st.floats(0, 200) | st.just(math.inf),
        prompt_tokens=st.integers(0, 10_000),
        priority=st.integers(-5, 5),
        weight=st.floats(0.001, 10),
    ),
    min_size=1,
    max_size=12,
).map(lambda many: [_named(one, i) for i, one in enumerate(many)])


def _named(one: RequestView, index: int) -> RequestView:
    return view(
        f"r{index}", one.arrival_s, one.deadline_s, one.prompt_tokens, one.priority, one.weight
    )


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(many=views, load=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_order_is_total_deterministic_and_by_key(name, many, load):
    at = context(name, load)
    by_key = sorted(many, key=lambda one: POLICIES[name].key(one, at))
    assert served(name, many, load) == [one.request_id for one in by_key]
    for one in many:
        assert POLICIES[name].key(one, at) == POLICIES[name].key(one, at)


@pytest.mark.parametrize(("old", "new"), itertools.permutations(NAMES, 2))
def test_a_switch_keeps_every_request_once_and_orders_anew(old, new):
    queue = queue_of(STAGGERED[:2])
    queue.set_policy(old, {}, PREFILL_S_PER_TOKEN)
    for one in STAGGERED[2:]:
        queue.add_request(LightRequest(one))
    queue.set_policy(new, {}, PREFILL_S_PER_TOKEN)
    assert len(queue) == len(STAGGERED)
    order = "".join(queue.pop_request().request_id for _ in STAGGERED)
    assert order == BY_HAND[new][0.0]
    assert not queue


@pytest.mark.parametrize("load", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_odd_requests_get_comparable_keys(name, rate, load):
    for params in corners(name):
        at = PolicyContext(rate, load, complete_params(name, params))
        keys = [POLICIES[name].key(one, at) for one in [*ODD, *STAGGERED]]
        assert len({len(key) for key in keys}) == 1, "keys of one policy have one length"
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


def test_no_policy_needs_vllm():
    for path in Path(policies.__file__).parent.glob("*.py"):
        imported = [
            alias.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert [name for name in imported if name.split(".")[0] == "vllm"] == [], path.name
