"""Which of the rule agents' calls go through this tick? Called by the short horizon."""

from collections.abc import Iterable

from hmas_agents.agents import balance, batching, kv_admission
from hmas_agents.agents.calls import RuleAgent, RuleCall

# In order of precedence: KV safety beats batching beats balance.
RULE_AGENTS: dict[str, RuleAgent] = {
    "kv_admission": kv_admission.propose,
    "batching": batching.propose,
    "balance": balance.propose,
}


def arbitrate(calls: Iterable[RuleCall]) -> list[RuleCall]:
    """The first call of each tool, in the order given (that of precedence)."""
    first: dict[str, RuleCall] = {}
    for call in calls:
        first.setdefault(call["name"], call)
    return list(first.values())
