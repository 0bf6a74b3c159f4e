"""May an agent switch a short-horizon rule of the hook? Called by rule agents and by hand."""

from typing import Annotated, Literal

from pydantic import Field

from serving.contracts import Limits
from serving.rules import RULES
from tools.tool import Change, tool

_OFF = Limits(max_active_requests=1, token_budget=1)


@tool
def switch_rule(
    rule: Annotated[
        Literal[
            "slack", "demote", "kv", "serial", "balance", "buckets", "triage", "pace", "victims"
        ],
        Field(description="Which rule; serving/README.md says what each does."),
    ],
    on: Annotated[bool, Field(description="On with its usual values, or off.")],
) -> Change:
    """Switch a rule that acts before each step, on or off.

    Step size by slack, hopeless last, KV guard, one prefill at a time, prefill balance,
    tenant buckets, triage, decodes at their own pace, choice of victims.
    """
    values = RULES[rule]
    return values if on else {name: getattr(_OFF, name) for name in values}
