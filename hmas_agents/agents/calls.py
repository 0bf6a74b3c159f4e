"""In what form does a rule agent ask for a change, and what does a change push?

The arguments of a tool, addressed by name: what a model would write as a tool call.
Made by the rule agents, ordered by the arbiter, executed by the short horizon's
ToolNode. What is said of a knob is in its row of `serving.contracts.limits`.
"""

from typing import Any, Protocol, TypedDict

from hmas_agents.states import ShortState
from serving.contracts import Limits
from serving.contracts.limits import Quantity
from serving.contracts.rules import BY_TOOL, KNOBS, OFF

LEAST_SHARE = 0.25  # of what the server allows: agents lower budgets and counts no further


class RuleCall(TypedDict):
    """One tool call asked for by a rule agent; `args` include the reason."""

    name: str
    args: dict[str, Any]


class RuleAgent(Protocol):
    """A pure function of the state; `arbiter` says when its calls may go through."""

    def __call__(self, state: ShortState) -> list[RuleCall]:
        """At most one call per tool; none when nothing should change."""
        ...


def call_for(limit: str, value: float, state: ShortState, reason: str) -> RuleCall:
    """The call of the tool that sets a limit; what else it sets stays as it is."""
    knob = KNOBS[limit]
    also = {name: getattr(state.limits, name) for name in knob.also}
    return {"name": knob.tool, "args": {knob.argument: value, **also, "reason": reason}}


def stepped(limit: str, way: int, state: ShortState) -> float:
    """The value one step above (way 1) or below (-1) what is in force; the same at the end."""
    knob, now = KNOBS[limit], getattr(state.limits, limit)
    value: float
    if knob.times is not None:
        down, up = knob.times
        tokens = knob.high == "token_budget"
        highest = state.max_token_budget if tokens else state.max_active_requests
        lowest = min(now, max(1, int(highest * LEAST_SHARE)))
        value = min(int(now * up) + 1, highest) if way > 0 else max(int(now * down), lowest)
    elif knob.add:
        value = round(now + way * knob.add, 4)
        value = max(now, min(value, knob.step_high)) if way > 0 else max(value, knob.low)
    elif way < 0:
        value = OFF[limit]
    else:
        value = knob.on(state.limits) if callable(knob.on) else knob.on
    return value


def step_of(call: RuleCall, limits: Limits) -> int:
    """1 where the call raises its knob above what is in force, -1 below, 0 for the same."""
    knob = BY_TOOL[call["name"]]
    asked, present = call["args"][knob.argument], getattr(limits, knob.name)
    return int(asked > present) - int(asked < present)


def push_of(call: RuleCall, limits: Limits) -> tuple[Quantity, int]:
    """Which quantity the call pushes, and whether up (1) or down (-1)."""
    knob = BY_TOOL[call["name"]]
    return knob.pushes, knob.sign * step_of(call, limits)
