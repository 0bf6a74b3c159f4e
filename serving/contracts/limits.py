"""Which knobs does an engine have, and what is said of each? `Limits` is the table.

Bounds, counters, rules, tools, the arbiter's holds, models' menus, metrics and the table in
`docs/how/execution.md` are derived from these rows (`rules.py`). To act on a knob, code reads
the field of that name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from serving.contracts.codec import STRICT

# What more than one knob acts on: prefill tokens per step, and requests let in.
Quantity = Literal["", "prefill", "admitted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """All that is said of one field of `Limits`.

    Attributes:
        text: what it does, for people and models.
        unit: of its value; empty for switches.
        low, high: what decisions are clamped to; a name is that field of `Envelope`.
        needs: the field of `Envelope` without which it stays at `low`.
        rule: the short-horizon rule that it is (a part of).
        on: its value when switched on, or a function of the other limits that gives it.
        counts: counters of what it did, and what each of them counts.
        tool, argument: the tool that agents move it with; without one, `switch_rule` does.
        also: other fields that the same tool sets.
        tool_high: the most that a tool may ask for, where that is less than `high`.
        pushes: the quantity that other knobs push, too; `sign` is -1 where a higher value
            means less of it.
        hold_down_s, hold_up_s: seconds after its last change before an agent may lower or
            raise it: fast where waiting hurts, slow on the way back (hysteresis in time).
        concern: the rule agent that moves it; `down`, `up` are the names of the steps that a
            model chooses from in its place.
        add, times: size of a step: a summand, or factors down and up. Neither: off and `on`.
        step_high: where steps up end, if below `high`.
        name, kind: of the field of `Limits`; filled in by `rules.py`.
    """

    text: str
    unit: str = ""
    low: float = 0
    high: float | str = 1
    needs: str = ""
    rule: str = ""
    on: Any = True
    counts: Mapping[str, str] = field(default_factory=dict)
    tool: str = ""
    argument: str = "on"
    also: tuple[str, ...] = ()
    tool_high: float | None = None
    pushes: Quantity = ""
    sign: int = 1
    hold_down_s: float = 0.0
    hold_up_s: float = 0.0
    concern: str = ""
    down: str = ""
    up: str = ""
    add: float = 0.0
    times: tuple[float, float] | None = None
    step_high: float = 1.0
    name: str = ""
    kind: Any = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What may change while the engine runs; by default no rule acts."""

    __pydantic_config__ = STRICT
    max_active_requests: Annotated[int, Knob(
        text="Let at most this many requests run at once. Lowering it drains, it never kills.",
        unit="requests", low=1, high="max_active_requests",
        tool="set_max_active_requests", argument="max_requests", pushes="admitted",
        hold_down_s=4.0, hold_up_s=10.0,
        concern="admission", down="fewer_at_once", up="more_at_once", times=(0.9, 1.25),
    )]  # fmt: skip
    token_budget: Annotated[int, Knob(
        text="Schedule at most this many tokens in a step. Smaller steps give steadier decodes, "
        "larger ones faster prefill.",
        unit="tokens", low=1, high="token_budget",
        tool="set_token_budget", argument="max_tokens", also=("follow_slack",), pushes="prefill",
        hold_down_s=6.0, hold_up_s=20.0,
        concern="batching", down="smaller_steps", up="larger_steps", times=(0.75, 1.25),
    )]  # fmt: skip
    long_prefill_threshold: Annotated[int, Knob(
        text="Schedule at most this many tokens of one prompt in a step, so that short prompts "
        "fit beside it; 0 = off.",
        unit="tokens", high="max_model_len",
        on=lambda limits: max(128, limits.token_budget // 2),
        tool="set_long_prefill_threshold", argument="max_tokens",
        hold_down_s=10.0, hold_up_s=20.0,
        concern="prefill", down="do_not_share", up="share_steps",
    )] = 0  # fmt: skip
    follow_slack: Annotated[bool, Knob(
        text="Size each step by the slack of its tightest decode.",
        rule="slack",
        counts={"slack_bound_steps": "steps whose token budget the decodes' slack lowered"},
    )] = False  # fmt: skip
    demote_hopeless: Annotated[bool | None, Knob(
        text="Serve requests last that can no longer meet their SLO; null = as the policy says.",
        rule="demote",
        counts={"demoted": "requests found hopeless, and served last from then on"},
    )] = None  # fmt: skip
    max_partial_prefills: Annotated[int, Knob(
        text="Admit no prompt while this many are partly prefilled, unless it outranks them; "
        "0 = off.",
        unit="requests", high="max_active_requests", rule="serial", on=1,
        counts={"partial_held_steps": "steps that admitted no request beside partial prefills"},
    )] = 0  # fmt: skip
    prefill_by_key: Annotated[bool, Knob(
        text="Let a waiting request go before partly prefilled ones of higher key that can wait.",
        rule="serial",
        counts={"yielded_prefills": "times that a partial prefill let a waiting request pass"},
    )] = False  # fmt: skip
    prefill_share: Annotated[float, Knob(
        text="Give prefill at least this share of a step's time while a waiting deadline is "
        "near; 0 = off.",
        unit="share of time", high=0.9, rule="balance", on=0.35,
        counts={"share_raised_steps": "steps that gave prefill more tokens than slack allows"},
        tool="set_prefill_share", argument="share",
        tool_high=0.6,  # more would stall decodes for prompts that may be late anyway
        pushes="prefill", hold_down_s=10.0, hold_up_s=20.0,
        concern="prefill", down="less_prefill", up="more_prefill",
    )] = 0.0  # fmt: skip
    tenant_buckets: Annotated[bool, Knob(
        text="Serve what a tenant sends beyond its share last, while other tenants wait.",
        rule="buckets",
        counts={"over_share": "requests that came in beyond their tenant's share"},
        tool="set_tenant_buckets", hold_down_s=30.0, hold_up_s=10.0,
        concern="tenant_shares", down="let_go", up="hold_to_shares",
    )] = False  # fmt: skip
    triage: Annotated[bool, Knob(
        text="Move the costliest prefills back until the rest meet their deadlines.",
        rule="triage",
        counts={"parked": "times that a request was moved back so that others are in time"},
    )] = False  # fmt: skip
    pace_decodes: Annotated[bool, Knob(
        text="Skip steps for decodes that are ahead of their TPOT target, where a step with all "
        "would be too long for the tightest target.",
        rule="pace",
        counts={"rested_decodes": "times that a decode skipped a step"},
        tool="set_decode_pacing", hold_down_s=10.0, hold_up_s=4.0,
        concern="batching", down="decode_all", up="decode_in_turns",
    )] = False  # fmt: skip
    shed: Annotated[float, Knob(
        text="Refuse this share of the requests of sheddable classes with HTTP 503; 0 = off.",
        unit="share of requests", needs="sheddable",
        tool="set_shed_share", argument="share", pushes="admitted", sign=-1,
        hold_down_s=10.0, hold_up_s=6.0,
        concern="admission", down="refuse_fewer", up="refuse_more", add=0.25,
    )] = 0.0  # fmt: skip


# What guarantees did; no knob switches them.
GUARANTEE_COUNTS = {
    "floor_served": "admissions owed to a tenant's floor",
    "ceiling_served": "admissions owed to `max_wait_s`",
}
