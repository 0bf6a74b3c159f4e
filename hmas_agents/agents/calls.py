"""In what form does a rule agent ask for a change?

The arguments of a tool, addressed by name: what a model would write as a tool call.
Made by the rule agents, ordered by the arbiter, executed by the short horizon's
ToolNode.
"""

from typing import Any, Protocol, TypedDict

from hmas_agents.states import ShortState


class RuleCall(TypedDict):
    """One tool call asked for by a rule agent; `args` include the reason."""

    name: str
    args: dict[str, Any]


class RuleAgent(Protocol):
    """A pure function of the state and of how long ago each tool last changed something."""

    def __call__(self, state: ShortState, since_change_s: dict[str, float]) -> list[RuleCall]:
        """At most one call per tool; none when nothing should change."""
        ...


NEVER_S = float("inf")


def settled(tool: str, since_change_s: dict[str, float], hold_s: float) -> bool:
    """Whether the last change of `tool` is at least `hold_s` old (its effect can be seen)."""
    return since_change_s.get(tool, NEVER_S) >= hold_s
