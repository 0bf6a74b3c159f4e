"""May an agent switch a short-horizon rule of the hook? Called by rule agents and by hand."""

from typing import Any, Literal

from pydantic import Field

from serving.contracts import Limits
from serving.rules import RULES
from tools.tool import Tool, ToolArgs

_OFF = Limits(max_active_requests=1, token_budget=1)


class SwitchRuleArgs(ToolArgs):
    """One rule of `serving.rules`."""

    rule: Literal["slack", "demote", "kv", "balance", "buckets", "victims"] = Field(
        description="Which rule; serving/README.md says what each does."
    )
    on: bool = Field(description="On with its usual values, or off.")


def _change(args: SwitchRuleArgs) -> dict[str, Any]:
    values = RULES[args.rule]
    return values if args.on else {name: getattr(_OFF, name) for name in values}


TOOL = Tool(
    name="switch_rule",
    description="Switch a rule that acts before each step: step size by slack, hopeless last, "
    "KV guard, prefill balance, tenant buckets, choice of victims.",
    args=SwitchRuleArgs,
    change=_change,
)
