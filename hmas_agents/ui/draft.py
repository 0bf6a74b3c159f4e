"""Does a prompt under edit hold together, and how large is it? Called at every pause in typing."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hmas_agents.agents.asking import check_fit, messages_for
from hmas_agents.commands.sample_state import SAMPLE_STATE
from hmas_agents.token_count import TokenCounter, token_counter
from prompts.edit import check_text, new_version
from prompts.loader import VARIABLES, Message, load_prompt
from prompts.store import PromptError
from serving.policies import POLICIES


def check_draft(name: str, text: str, root: Path) -> dict[str, Any]:
    """Problems by file, line and key; without any, the messages in a built-in situation.

    Args:
        name: which prompt it would be a version of.
        text: front matter and both parts.
        root: folder of the prompts.
    """
    problems = check_text(name, text, root)
    messages: list[Message] = []
    if not problems:
        try:
            messages = _render(name, text)
        except PromptError as error:
            problems = error.problems
    counter = _counter()
    return {
        "problems": [problem.removeprefix(f"{root}/") for problem in problems],
        "messages": messages,
        "tokens": counter.count_messages(messages) if messages else 0,
        "counted_by": counter.source,
    }


def _render(name: str, text: str) -> list[Message]:
    """The messages as they would be sent; published for that in a folder that is thrown away."""
    with TemporaryDirectory() as folder:
        prompt = load_prompt(name, new_version(name, text, Path(folder)), Path(folder))
    if name not in VARIABLES:  # nobody here fills it in
        return [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
    check_fit(prompt)
    return messages_for(prompt, SAMPLE_STATE, tuple(POLICIES))


@cache
def _counter() -> TokenCounter:
    return token_counter()
