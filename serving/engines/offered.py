"""What is offered to a virtual engine? A trace's requests as columns, as tracks, and for whom."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO, Contract, ResidentRequest, TraceRequest
from serving.contracts.contract import CUSTOM
from serving.contracts.settings import EngineSettings
from serving.engines.block_contents import BlockContents, number_blocks
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun
from serving.perception.accounting import RequestTrack
from serving.perception.attributes import slo_of
from serving.policies import RequestView


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests as columns: the `begun` ones that an engine holds already, then by arrival.

    Attributes:
        arrival_s: seconds, sorted from `begun` on.
        prompt_tokens, output_tokens: lengths; the true one of the whole answer.
        max_tokens: of the answer, as the request allows it.
        cached_tokens: as in a `TraceRequest`.
        sender: who sent each, a number of `senders`.
        senders: a request of each, for what all of its requests have in common: tenant, SLO
            class, targets, priority.
        contents: of their KV blocks; None without prefix caching.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    max_tokens: NDArray[np.int32]
    cached_tokens: NDArray[np.int32]
    sender: NDArray[np.int32]
    senders: tuple[TraceRequest, ...]
    contents: BlockContents | None = None
    begun: int = 0

    def __len__(self) -> int:
        return len(self.arrival_s)


def columns(
    requests: Sequence[TraceRequest], profile: EngineProfile, begun: Sequence[Begun] = ()
) -> Workload:
    """Requests (sorted by arrival) as columns, for any number of runs."""
    inside = [one.inside for one in begun]
    together: list[ResidentRequest | TraceRequest] = [*inside, *requests]
    longest = longest_answer(requests)

    def tokens(values: list[int]) -> NDArray[np.int32]:
        return np.array(values, np.int32)

    prompt = tokens([one.prompt_tokens for one in together])
    answers = [one.output_tokens for one in begun] + [one.output_tokens for one in requests]
    output = tokens(answers)
    contents = None
    if profile.prefix_caching:
        prefixes = [one.prefix for one in together]
        contents = number_blocks(prefixes, prompt, output, profile.block_size)
    numbers = dict[tuple[str, str, int, SLO | None], int]()
    sender = [
        numbers.setdefault((one.tenant, one.slo_class, one.priority, one.slo), len(numbers))
        for one in together
    ]
    senders = tuple(TraceRequest(0.0, 1, 1, *named[:3], slo=named[3]) for named in numbers)
    return Workload(
        np.array([one.arrival_s for one in together], np.float64), prompt, output,
        tokens([one.max_tokens or longest for one in together]),
        tokens([one.cached_tokens for one in together]), tokens(sender), senders,
        contents, len(inside),
    )  # fmt: skip


def longest_answer(requests: Sequence[TraceRequest]) -> int:
    """What a request allows that does not say how long an answer it allows."""
    return max(1, max((one.output_tokens for one in requests), default=1))


def promised_to(offered: TraceRequest, settings: EngineSettings) -> tuple[str, SLO]:
    """SLO class and targets of a request: those of its class, or its own."""
    if offered.slo is not None:
        return offered.slo_class, offered.slo
    return slo_of({"slo_class": offered.slo_class}, settings, offered.tenant)


def slos_of(senders: Sequence[TraceRequest], settings: EngineSettings) -> list[SLO]:
    """The targets of each, as `promised_to` has them."""
    return [promised_to(one, settings)[1] for one in senders]


def track_of(
    index: int, offered: TraceRequest, max_tokens: int, promised: tuple[str, SLO]
) -> RequestTrack:
    """The beginnings of a request's outcome."""
    slo_class, slo = promised
    view = RequestView(
        f"r{index}", offered.tenant, slo_class, slo, offered.arrival_s, 0.0,
        offered.prompt_tokens,
    )  # fmt: skip
    return RequestTrack(view, max_tokens, ("", 0), offered.prompt_tokens)


def as_the_trace_says(contract: Contract) -> Contract:
    """The same contract for a simulation: the trace says whose a request is, and no API key.

    Any tenant may bring targets of its own: requests that another engine held keep theirs.
    """
    tenants = {
        name: terms.model_copy(
            update={
                "api_key_hashes": (),
                "classes": tuple(dict.fromkeys((*terms.classes, CUSTOM))) if terms.classes else (),
            }
        )
        for name, terms in contract.tenants.items()
    }
    return contract.model_copy(update={"tenants": tenants, "believe_clients": True})
