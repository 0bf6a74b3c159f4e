"""What exactly is the model asked about a long state? One place, so that a replay asks the same.

Called by the long horizon, by `hmas replay` and by the evals of the policy agent.
"""

from hmas_agents.agents.summary import parameter_bounds, policy_cards, summarise
from hmas_agents.states import LongState
from prompts.loader import Message, Prompt
from serving.policies import format_policy


def messages_for(
    prompt: Prompt, state: LongState, allowed: tuple[str, ...]
) -> list[Message]:
    """The chat messages; a prompt may leave out what it does not need.

    Args:
        prompt: which version.
        state: the last minutes.
        allowed: policies to choose from, in the order in which they are listed.

    Raises:
        PromptError: the prompt has a variable that nothing here fills in.
    """
    known = {
        "policies": policy_cards(allowed),
        "parameters": parameter_bounds(allowed),
        "current": format_policy(state.policy, state.params),
        "summary": summarise(state),
    }
    return prompt.render(**{key: known[key] for key in prompt.head.variables if key in known})
