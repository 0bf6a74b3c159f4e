"""Does a prompt ask for values that the policy agent has, and for replies that it reads?

Called by `hmas_agents.reload`, by `hmas prompts` and by the editor of the local web page.
"""

from hmas_agents.agents.reply import SCHEMA_VERSION
from prompts.loader import VARIABLES, Prompt, PromptError


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
