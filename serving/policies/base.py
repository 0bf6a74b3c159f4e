"""What may a policy look at, and what must it return?

A policy is a pure function from a request view and a context to a sort key; the
lowest key is served first. Nothing here or in a policy file imports vLLM, so a
policy can move to vLLM's own scheduler plugins (RFC 51608) unchanged.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from serving.contracts import SLO


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request as policies see it.

    Attributes:
        arrival_s: arrival on the engine's clock.
        deadline_s: when its first token is due (or, for end-to-end SLOs, when
            decoding must start); infinity without an SLO.
        prompt_tokens: prompt tokens not yet in the KV cache.
        priority: vLLM's request priority, lower first.
        weight: of its tenant.
        predicted_output_tokens: mean predicted answer length.
        q90_output_tokens: answer length that nine of ten stay below.
        cached_tokens: prompt tokens that the KV cache already holds.
        attained_tokens: output tokens produced before it was preempted.
    """

    request_id: str
    tenant: str
    slo_class: str
    slo: SLO
    arrival_s: float
    deadline_s: float
    prompt_tokens: int
    priority: int = 0
    weight: float = 1.0
    predicted_output_tokens: float = 0.0
    q90_output_tokens: float = 0.0
    cached_tokens: int = 0
    attained_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """What a key may depend on beside the request.

    Attributes:
        prefill_s_per_token: predicted seconds per prompt token.
        decode_s_per_token: predicted seconds of one request's output token, tau.
        load: 0 (queue can meet its deadlines) to 1 (it cannot); changes in steps,
            and every change re-keys the queue.
        params: the policy's own parameters, complete and inside their bounds.
    """

    prefill_s_per_token: float
    load: float
    params: Mapping[str, float]
    decode_s_per_token: float = 0.0

    def prefill_s(self, view: RequestView) -> float:
        """Predicted seconds of prefill, c = p / prefill rate."""
        return view.prompt_tokens * self.prefill_s_per_token


@dataclass(frozen=True, slots=True)
class PolicyCard:
    """When a policy helps and when it hurts, in one line each (shown to the policy agent)."""

    helps: str
    hurts: str


Key = tuple[float, ...]


def comparable(key: Key) -> Key:
    """The key, if it has an order: so that the policy is to blame, and no heap fails over it.

    Raises:
        ValueError: a NaN is in it.
    """
    if type(key) is not tuple:
        key = tuple(key)
    total = sum(key)
    if total != total and any(map(math.isnan, key)):  # noqa: PLR0124  faster than isnan
        raise ValueError(f"the key {key} has no order")
    return key


class Policy(ABC):
    """One scheduling policy.

    Attributes:
        name: as decisions name it.
        card: when it helps and when it hurts.
        demotes: requests that can no longer meet their SLO sort behind all others.
        starvation_free: the order alone bounds waiting, no ceiling is needed.
        is_stock: the order is vLLM's own, so running requests keep their places.
        shares: the tenant with the least weighted work is served first, and the key
            orders within the tenant.
        follows_load: the key depends on `PolicyContext.load`.
        needs_lengths: the key depends on predicted output lengths.
        default_params, param_bounds: its parameters, and their inclusive bounds.
        param_choices: values worth choosing between, ascending, where they are known; the
            twin tries the neighbours of the one in force.
    """

    name: str
    card: PolicyCard
    demotes = False
    starvation_free = False
    is_stock = False
    shares = False
    follows_load = False
    needs_lengths = False
    default_params: Mapping[str, float] = {}
    param_bounds: Mapping[str, tuple[float, float]] = {}
    param_choices: Mapping[str, tuple[float, ...]] = {}

    @abstractmethod
    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """Sort key; lower is served first, ties by queue order."""
