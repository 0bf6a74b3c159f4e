"""Between which calls may a model choose in a rule agent's place? Bounded ones, by concern.

Each entry is a whole tool call within the tool's bounds and the envelope, so that a model
names one and cannot invent another. Used by `model_rule_agent`.
"""

from collections.abc import Callable

from hmas_agents.agents.admission import SHED_STEP
from hmas_agents.agents.batching import FLOOR_SHARE
from hmas_agents.agents.calls import RuleCall, step_of
from hmas_agents.agents.memory import RESERVE_MAX, RESERVE_STEP
from hmas_agents.agents.prefill import PREFILL_SHARE, SMALLEST_TOKENS
from hmas_agents.config import Concern
from hmas_agents.states import ShortState

Menu = dict[str, RuleCall]
_REASON = "chosen by the model"


def menu_for(concern: Concern, state: ShortState) -> Menu:
    """The calls of a concern that would change something now, by the name to choose them by."""
    calls = _MENUS[concern](state)
    return {name: call for name, call in calls.items() if step_of(call, state.limits)}


def _batching(state: ShortState) -> Menu:
    budget, most = state.limits.token_budget, state.max_token_budget
    follow = state.limits.follow_slack

    def to(tokens: int) -> RuleCall:
        args = {"max_tokens": tokens, "follow_slack": follow, "reason": _REASON}
        return {"name": "set_token_budget", "args": args}

    least = min(budget, max(1, int(most * FLOOR_SHARE)))
    return {
        "smaller_steps": to(max(int(budget * 0.75), least)),
        "larger_steps": to(min(int(budget * 1.25) + 1, most)),
        "decode_in_turns": _call("set_decode_pacing", "on", True),
        "decode_all": _call("set_decode_pacing", "on", False),
    }


def _memory(state: ShortState) -> Menu:
    reserve = state.limits.kv_reserve
    more = max(reserve, min(round(reserve + RESERVE_STEP, 4), RESERVE_MAX))
    less = max(0.0, round(reserve - RESERVE_STEP, 4))
    return {
        "choose_victims": _call("set_victim_choice", "on", True),
        "leave_victims": _call("set_victim_choice", "on", False),
        "reserve_more": _call("set_kv_reserve", "fraction", more),
        "reserve_less": _call("set_kv_reserve", "fraction", less),
    }


def _admission(state: ShortState) -> Menu:
    limit, most = state.limits.max_active_requests, state.max_active_requests
    least = min(limit, max(1, int(most * FLOOR_SHARE)))
    active, shed = "set_max_active_requests", state.limits.shed
    menu = {
        "fewer_at_once": _call(active, "max_requests", max(int(0.9 * limit), least)),
        "more_at_once": _call(active, "max_requests", min(int(limit * 1.25) + 1, most)),
    }
    if state.sheddable:
        menu["refuse_more"] = _call("set_shed_share", "share", min(shed + SHED_STEP, 1.0))
        menu["refuse_fewer"] = _call("set_shed_share", "share", max(shed - SHED_STEP, 0.0))
    return menu


def _prefill(state: ShortState) -> Menu:
    half = max(SMALLEST_TOKENS, state.limits.token_budget // 2)
    return {
        "share_steps": _call("set_long_prefill_threshold", "max_tokens", half),
        "do_not_share": _call("set_long_prefill_threshold", "max_tokens", 0),
        "more_prefill": _call("set_prefill_share", "share", PREFILL_SHARE),
        "less_prefill": _call("set_prefill_share", "share", 0.0),
    }


def _tenant_shares(_: ShortState) -> Menu:
    return {
        "hold_to_shares": _call("set_tenant_buckets", "on", True),
        "let_go": _call("set_tenant_buckets", "on", False),
    }


def _call(tool: str, argument: str, value: float) -> RuleCall:
    return {"name": tool, "args": {argument: value, "reason": _REASON}}


_MENUS: dict[Concern, Callable[[ShortState], Menu]] = {
    "memory": _memory,
    "tenant_shares": _tenant_shares,
    "admission": _admission,
    "batching": _batching,
    "prefill": _prefill,
}
