"""May an agent switch a short-horizon rule of the hook? Called by rule agents and by hand."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from serving.contracts.rules import KNOBS, OFF, RULES
from tools.tool import Change, tool

if TYPE_CHECKING:
    Rule = str
else:
    Rule = Literal[tuple(RULES)]
_TEXTS = [f"{rule}: {' '.join(KNOBS[limit].text for limit in on)}" for rule, on in RULES.items()]


@tool
def switch_rule(
    rule: Annotated[Rule, Field(description="\n".join(_TEXTS))],
    on: Annotated[bool, Field(description="On with its usual values, or off.")],
) -> Change:
    """Switch a rule that acts before each step, on or off."""
    values = RULES[rule]
    return values if on else {limit: OFF[limit] for limit in values}
