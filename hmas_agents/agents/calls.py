"""In what form does a rule agent ask for a change, and what does a change push?

The arguments of a tool, addressed by name: what a model would write as a tool call.
Made by the rule agents, ordered by the arbiter, executed by the short horizon's
ToolNode.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict

from hmas_agents.states import ShortState
from serving.contracts import Limits

# What more than one knob acts on: prefill tokens per step, and requests let in.
Quantity = Literal["", "prefill", "admitted"]


class RuleCall(TypedDict):
    """One tool call asked for by a rule agent; `args` include the reason."""

    name: str
    args: dict[str, Any]


class RuleAgent(Protocol):
    """A pure function of the state; when it may speak again is for `pace` to say."""

    def __call__(self, state: ShortState) -> list[RuleCall]:
        """At most one call per tool; none when nothing should change."""
        ...


@dataclass(frozen=True, slots=True)
class Knob:
    """What a rule agent's tool sets.

    Attributes:
        limit: the field of `contracts.Limits`.
        argument: of the tool, whose value goes there.
        pushes: the quantity that other knobs push too; empty if none does.
        sign: whether a higher value means more of it (1) or less (-1).
    """

    limit: str
    argument: str
    pushes: Quantity = ""
    sign: int = 1


KNOBS: dict[str, Knob] = {
    "set_kv_reserve": Knob("kv_reserve", "fraction", "admitted", -1),
    "set_victim_choice": Knob("choose_victims", "on"),
    "set_tenant_buckets": Knob("tenant_buckets", "on"),
    "set_max_active_requests": Knob("max_active_requests", "max_requests", "admitted"),
    "set_shed_share": Knob("shed", "share", "admitted", -1),
    "set_token_budget": Knob("token_budget", "max_tokens", "prefill"),
    "set_decode_pacing": Knob("pace_decodes", "on"),
    "set_prefill_share": Knob("prefill_share", "share", "prefill"),
    "set_long_prefill_threshold": Knob("long_prefill_threshold", "max_tokens"),
}


def step_of(call: RuleCall, limits: Limits) -> int:
    """1 where the call raises its knob above what is in force, -1 below, 0 for the same."""
    knob = KNOBS[call["name"]]
    asked, present = call["args"][knob.argument], getattr(limits, knob.limit)
    return int(asked > present) - int(asked < present)


def push_of(call: RuleCall, limits: Limits) -> tuple[Quantity, int]:
    """Which quantity the call pushes, and whether up (1) or down (-1)."""
    knob = KNOBS[call["name"]]
    return knob.pushes, knob.sign * step_of(call, limits)
