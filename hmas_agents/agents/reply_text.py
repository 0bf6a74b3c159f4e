"""What else is in a reply's text: thinking before the answer, numbers made up in a reason?

Called by the policy agent.
"""

import re
from collections.abc import Iterable

from hmas_agents.records import Proposal

_THINKING_ENDS = "</think>"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TOLERANCE = 1e-9


def without_thinking(text: str) -> tuple[str, int]:
    """The answer after a `<think>...</think>` block, and how many characters came before.

    Chat templates may open the block in the prompt, so the closing tag alone counts; but
    a text that opens as JSON has no thinking before it.
    """
    if text.lstrip().startswith("{") or _THINKING_ENDS not in text:
        return text, 0
    thinking, _, answer = text.partition(_THINKING_ENDS)
    return answer, len(thinking) + len(_THINKING_ENDS)


def invented_numbers(proposal: Proposal, sent: Iterable[str]) -> list[str]:
    """Numbers in a proposal's reason that are neither in what was sent nor its own.

    Digits inside names count (`t3` needs a `t3` or a 3), and a share may be written as a
    percentage.
    """
    own = [*proposal.params.values(), *([proposal.confidence] if proposal.confidence else [])]
    known = {float(number) for text in sent for number in _NUMBER.findall(text)} | set(own)
    known |= {100 * number for number in known}
    return [
        number
        for number in _NUMBER.findall(proposal.reason)
        if all(abs(float(number) - k) > _TOLERANCE * max(1.0, abs(k)) for k in known)
    ]
