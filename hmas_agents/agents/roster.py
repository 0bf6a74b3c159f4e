"""Which rule agents act, and does a model stand in for one? Built once by the short horizon."""

from hmas_agents.agents import admission, batching, prefill, tenant_shares
from hmas_agents.agents.arbiter import PRECEDENCE
from hmas_agents.agents.calls import RuleAgent, RuleCall
from hmas_agents.agents.model_rule_agent import ModelRuleAgent
from hmas_agents.config import AgentsConfig, Concern
from hmas_agents.states import ShortState
from hmas_agents.telemetry.tracing import invoke_agent

RULE_AGENTS: dict[Concern, RuleAgent] = {
    "tenant_shares": tenant_shares.propose,
    "admission": admission.propose,
    "batching": batching.propose,
    "prefill": prefill.propose,
}


class Roster:
    """The enabled rule agents in order of precedence.

    Where `agents.model.replaces` names an enabled one, a model is asked in its place; the
    rule agent speaks while the model has no fresh answer. `token` signs its questions.
    """

    def __init__(self, config: AgentsConfig, token: str = "") -> None:
        self.agents: dict[Concern, RuleAgent] = {
            concern: RULE_AGENTS[concern] for concern in PRECEDENCE if concern in config.enabled
        }
        self.model: ModelRuleAgent | None = None
        replaced = config.model.replaces
        if replaced and replaced in self.agents:
            self.model = ModelRuleAgent(config.model, RULE_AGENTS[replaced], token)
            self.agents[replaced] = self.model.propose

    def ask(self, state: ShortState) -> list[tuple[Concern, RuleCall]]:
        """Every call, in order of precedence, with the agent that asks for it."""
        asked: list[tuple[Concern, RuleCall]] = []
        for concern, propose in self.agents.items():
            with invoke_agent(concern):
                asked += [(concern, call) for call in propose(state)]
        return asked

    def close(self) -> None:
        """Close the model's connections."""
        if self.model is not None:
            self.model.close()
