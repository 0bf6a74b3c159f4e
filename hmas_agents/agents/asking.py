"""What exactly is the model asked about a long state? One place, so that a replay asks the same.

Called by the long horizon, by `hmas replay` and by the evals of the policy agent; `check_fit` by
`hmas_agents.reload`, `hmas prompts` and the editor of the local web page.
"""

from hmas_agents.agents.reply import SCHEMA_VERSION
from hmas_agents.agents.summary import parameter_bounds, policy_cards, summarise
from hmas_agents.states import LongState
from prompts.loader import VARIABLES, Message, Prompt, PromptError
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


def check_fit(prompt: Prompt) -> None:
    """Whether the policy agent can fill in the prompt and read the replies that it asks for.

    Raises:
        PromptError: it cannot.
    """
    if prompt.head.schema_version != SCHEMA_VERSION:
        raise PromptError(
            f"{prompt.path}: schema_version: the policy agent reads replies of version "
            f"{SCHEMA_VERSION}, got {prompt.head.schema_version}"
        )
    if unknown := sorted(set(prompt.head.variables) - set(VARIABLES["policy"])):
        raise PromptError(
            f"{prompt.path}: variables: {unknown[0]!r} is not filled in by the policy agent; "
            f"there are {', '.join(VARIABLES['policy'])}"
        )
