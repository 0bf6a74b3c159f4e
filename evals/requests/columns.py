"""How are millions of requests held? As columns: an object each would fill the memory.

Drawn by `servegen`, planned for by `evals.plan`; whoever wants objects asks for them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evals.requests.scaling import fitting_lengths
from serving.contracts import TraceRequest


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """Requests in order of arrival.

    Attributes:
        arrival_s: seconds, shape (requests,).
        prompt_tokens, output_tokens: lengths, shape (requests,).
        sender: who sent each, a number of `senders`, shape (requests,).
        senders: a request of each, for what all of its requests have in common: tenant, SLO
            class, targets, priority.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    sender: NDArray[np.int32]
    senders: tuple[TraceRequest, ...]

    def __len__(self) -> int:
        return len(self.arrival_s)

    def requests(self) -> tuple[TraceRequest, ...]:
        """An object for each."""
        rows = zip(
            self.arrival_s.tolist(), self.prompt_tokens.tolist(), self.output_tokens.tolist(),
            (self.senders[number] for number in self.sender.tolist()), strict=True,
        )  # fmt: skip
        return tuple(
            TraceRequest(
                arrival_s, prompt, output, one.tenant, one.slo_class, one.priority, slo=one.slo
            )
            for arrival_s, prompt, output, one in rows
        )

    def clipped(self, max_model_len: int) -> tuple["RequestColumns", int]:
        """Shortened to the model's context as `clip_lengths` does it, and how many were."""
        prompt, output = fitting_lengths(self.prompt_tokens, self.output_tokens, max_model_len)
        changed = int(((prompt != self.prompt_tokens) | (output != self.output_tokens)).sum())
        return replace(self, prompt_tokens=prompt, output_tokens=output), changed
