"""Does the compiled engine with the hook go on from a running engine's requests as vLLM would?

From the residents of a random moment both engines begin with the same figures, and must tell the
same story from there, whatever is decided next and on whatever machine.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from serving.contracts import SLO, JournalPage, ResidentPage, ResidentRequest, TraceRequest
from serving.contracts.rules import RULES
from serving.engines.compiled import CompiledEngine
from serving.engines.resumed import Begun
from tests.serving.engines.both_engines import SETTINGS, drawn, machine, that_fit
from tests.serving.engines.both_hooked import (
    HookedCase,
    by_the_core,
    by_the_hook,
    difference,
    with_owners,
)
from tests.serving.engines.hooked_cases import START_RULES, acts, decide, hooked_cases

compared = {"examples": 0, "steps": 0, "requests": 0, "running": 0, "waiting": 0}


@pytest.fixture(scope="module", autouse=True)
def tell():
    yield
    print("\nresumed and compared with the hook inside vLLM's scheduler:", compared)


def seen_at(case: HookedCase, at_s: float) -> tuple[ResidentPage, JournalPage]:
    """The residents of a run of this case at the first step after `at_s`, and the journal."""
    engine = CompiledEngine(case.profile, case.settings)
    seen: list[tuple[ResidentPage, JournalPage]] = []

    def look() -> None:
        if not seen:
            seen.append((engine.inside(), engine.journal(0)))

    for act in case.first:
        act(engine)
    engine.run(case.requests, [(at_s, look)], case.until_s)
    return seen[0] if seen else (engine.inside(), engine.journal(0))


def from_there(case: HookedCase, at_s: float) -> HookedCase:
    """What is left of a case at that moment."""
    page, journal = seen_at(case, at_s)
    requests, now_s = case.requests, page.now_s
    begun = tuple(
        Begun(
            from_now(one, now_s), max(requests[int(one.request_id[1:])].output_tokens, 1)
        )
        for one in page.requests
    )  # fmt: skip
    later = [replace(one, arrival_s=one.arrival_s - now_s) for one in requests]
    served = tuple(
        (one.tenant, one.prompt_tokens, 40, one.output_tokens) for one in journal.outcomes
    )
    return replace(
        case, requests=tuple(one for one in later if one.arrival_s > 0.0), begun=begun,
        served=served, prefill_s_per_token=page.prefill_s_per_token,
    )  # fmt: skip


def from_now(one: ResidentRequest, now_s: float) -> ResidentRequest:
    """The same request on a clock whose second 0 is now."""

    def moved(time_s: float | None) -> float | None:
        return None if time_s is None else time_s - now_s

    return replace(
        one, arrival_s=one.arrival_s - now_s, admitted_s=moved(one.admitted_s),
        first_token_s=moved(one.first_token_s),
    )  # fmt: skip


def hold(case: HookedCase) -> None:
    """Both engines tell the same story."""
    expected = by_the_hook(case)
    assert difference(expected, by_the_core(case)) == ""
    assert expected.seen[-1].snapshot.policy_errors == 0
    running = sum(one.inside.running for one in case.begun or ())
    compared["examples"] += 1
    compared["steps"] += len(expected.steps)
    compared["requests"] += len(expected.outcomes)
    compared["running"] += running
    compared["waiting"] += len(case.begun or ()) - running


@settings(
    max_examples=int(os.environ.get("HMAS_EXAMPLES", "25")), deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
@given(hooked_cases(), st.sampled_from((0.02, 0.2, 0.6, 1.5, 4.0)), st.data())
def test_from_any_moment_both_go_on_alike(case, at_s, data):
    rest = from_there(case, at_s)
    assume(rest.begun)
    profile = case.profile
    if data.draw(st.booleans(), label="another machine"):
        profile = replace(
            profile, kv_blocks=max(8, profile.kv_blocks // 2),
            max_active_requests=max(1, profile.max_active_requests // 2),
        )  # fmt: skip
    first = tuple(data.draw(st.lists(acts(profile), max_size=2), label="first acts"))
    hold(replace(rest, profile=profile, first=first, until_s=8.0))


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("at_s", [0.4, 1.0, 2.5])
def test_a_crowd_goes_on_alike(at_s, caching):
    profile = machine(150, 12, 300, prefix_caching=caching)
    requests = with_owners(that_fit(drawn(5, 90, 60.0, 250, 40, 2), profile), 3)
    rest = from_there(HookedCase(profile, requests, SETTINGS), at_s)
    page = [one.inside.running for one in rest.begun or ()]
    assert sum(page) > 2
    assert len(page) - sum(page) > 2
    for rules in ((), START_RULES, RULES):
        hold(replace(rest, first=(decide(profile, "edf", rules),)))


def test_nobody_knows_how_long_a_decode_has_waited_that_gets_no_token_at_first():
    """A budget of one token lets one of two decodes wait for many steps."""
    profile, slo = machine(20, 3, 32), SLO(itl_ms=1.0)
    two = tuple(TraceRequest(0.1, 40, 60, "t0", slo=slo, max_tokens=60) for _ in range(2))
    rest = from_there(HookedCase(profile, two, SETTINGS), 0.2)
    assert [one.inside.output_tokens > 0 for one in rest.begun or ()] == [True, True]
    hold(replace(rest, first=(decide(profile, "fcfs", (), ttl_s=0.15, token_budget=1),)))
