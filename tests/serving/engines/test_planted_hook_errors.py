"""Would the comparison with the hook inside vLLM's scheduler find an error in the compiled one?

Changed copies of the sources run without the compiler, each on a case that needs what was changed.
Unchanged they must tell the hook's story, changed they must not.
"""

from dataclasses import replace
from functools import cache

import pytest

from serving.contracts import Contract
from serving.contracts.contract import SLO_CLASSES, ClassTerms
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from tests.serving.engines.both_engines import drawn, machine, that_fit
from tests.serving.engines.both_hooked import (
    HookedCase,
    HookedStory,
    Promise,
    by_the_core,
    by_the_hook,
    difference,
    with_owners,
)
from tests.serving.engines.hooked_cases import decide
from tests.serving.engines.planted_copy import Change, planted
from tests.serving.samples import shares

CORE, STEPS = "serving.core.", "serving.engines.hooked_steps"

# What is wrong, in which case that shows, and where it is planted.
PLANTED: dict[str, tuple[str, Change]] = {
    "a wrong tie: equals are served last in, first out": (
        "plain", (f"{CORE}queue", "engine.last += 1", "engine.last -= 1"),
    ),
    "a wrong tie: a preempted request waits behind its equals": (
        "plain", (f"{CORE}queue", "engine.first\n    _begin",
                  "engine.last - engine.first\n    _begin"),
    ),
    "a rule one step late: triage looks before the clock goes on": (
        "late", (f"{CORE}control", "    advance(core, now_s)\n    triage(core)",
                  "    triage(core)\n    advance(core, now_s)"),
    ),
    "a rule one step late: the plan is of the batch as it was": (
        "crowd", (STEPS, "    tell(state, core)\n    plan(core)",
                  "    plan(core)\n    tell(state, core)"),
    ),
    "stale keys after the load has changed": (
        "burst", (f"{CORE}queue", "    if stale or abs(rate", "    if abs(rate"),
    ),
    "a decode is counted twice for its lane": (
        "crowd", (f"{CORE}batch", "one.tenant].decoding += 1", "one.tenant].decoding += 2"),
    ),
    "a floor is owed what it was given": (
        "crowd", (f"{CORE}tenants", "own.owed = max(0.0, own.owed - prompt_tokens)", "pass"),
    ),
    "hidden requests are lost": (
        "paced", (STEPS, "hook.yielding + hook.resting == 0", "hook.yielding == 0"),
    ),
    "hidden requests come back at the end": (
        "paced", (STEPS, "if core.requests[row].hidden:\n            state",
                  "if False:\n            state"),
    ),
    "a preempted request counts the prompt alone": (
        "tight", (STEPS, "        batch.refresh(core, last, _cached(state, last))\n", ""),
    ),
    "a waiting request's cached prefix is looked up once": (
        "chats", (STEPS, "queue.look_again(core, row, before)", "pass"),
    ),
    "what is left of a share is forgotten at a refusal": (
        "shed", (STEPS, "hook.shed_owed -= 1.0", "hook.shed_owed = 0.0"),
    ),
    "the journal does not know of late gaps": (
        "tight", ("serving.engines.virtual_books", "int(run.state.gaps.late[row])", "0"),
    ),
    "triage does not look at weights": (
        "late", (f"{CORE}dearest", "prompt_tokens / weight", "prompt_tokens"),
    ),
    "a class has no weight": (
        "weights", ("serving.engines.virtual_hook", "weight_of(one.tenant, name)",
                    "weight_of(one.tenant, '')"),
    ),
    "a new contract leaves the keys of those that wait": (
        "weights", ("serving.hook.order", "if (column[waiting] != before).any():", "if False:"),
    ),
    "a lease that has ended still sheds": (
        "idle", (STEPS, "if state.progress[engine.arrived].fits and engine.now_s >= lease_s:",
                 "if False:"),
    ),
}  # fmt: skip


def case(profile, load, policy, rules, shed=0.0, ttl_s=60.0, **changes) -> HookedCase:
    requests = with_owners(that_fit(drawn(4, *load), profile), 3)
    quick = ClassTerms(ttft_ms=900.0, tpot_ms=14.0, itl_ms=30.0, weight=2.0)
    contract = shares({"t0": 3.0}, {"t2": 0.3}).model_copy(update={"classes": {"quick": quick}})
    settings = EngineSettings(contract=contract)
    first = decide(profile, policy, rules, ttl_s, shed=shed)
    # Whoever loses a request waits for it until then.
    whole = HookedCase(profile, requests, settings, (first,), until_s=30.0)
    return replace(whole, **changes)


@cache
def told() -> dict[str, tuple[HookedCase, HookedStory]]:
    """Each case, and what the hook inside vLLM makes of it."""
    tight, roomy, few = machine(60, 8, 200), machine(2000, 24, 400), machine(2000, 4, 400)
    sharing = machine(300, 4, 300, prefix_caching=True)
    sheddable = {name: ClassTerms(sheddable=True) for name in SLO_CLASSES}
    heavier = Contract(classes={"quick": ClassTerms(ttft_ms=900.0, weight=9.0)})
    may_shed = EngineSettings(contract=Contract(classes=sheddable))
    cases = {  # load: requests, rate per second, tokens of prompts and answers, topics
        "plain": case(tight, (40, 30.0, 250, 40), "fcfs", ()),
        "crowd": case(tight, (25, 30.0, 250, 14), "edf", RULES),
        "tight": case(tight, (40, 30.0, 250, 40), "edf", ("demote",)),
        "late": case(few, (60, 60.0, 250, 14), "edf", ("triage",)),
        "burst": case(few, (100, 90.0, 300, 10), "slide", ()),
        "paced": case(roomy, (20, 60.0, 250, 14), "edf", ("pace",)),
        "chats": case(sharing, (60, 30.0, 900, 14, 2), "prefix", ("serial",)),
        "weights": case(
            few, (60, 60.0, 250, 14), "sjf", (), acts=(Promise(heavier),), tick_s=0.7,
        ),
        "shed": case(roomy, (30, 3.0, 250, 14), "edf", (), 0.7, settings=may_shed),
        "idle": case(  # nobody looks while the lease ends
            roomy, (12, 1.0, 250, 4), "edf", (), 1.0, 4.0, settings=may_shed, tick_s=100.0,
        ),
    }  # fmt: skip
    return {name: (one, by_the_hook(one)) for name, one in cases.items()}


def found(name: str, change: Change | None) -> str:
    """In what the copy differs; what it raises is a difference."""
    one, expected = told()[name]
    try:
        return difference(expected, by_the_core(one, planted(change)))
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def test_the_unchanged_copy_tells_the_hooks_story():
    assert {name: found(name, None) for name in told()} == dict.fromkeys(told(), "")


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found(error):
    assert found(*PLANTED[error]) != ""
