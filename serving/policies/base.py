"""What may a policy look at, and what must it return?

A policy's key is one plain function of numbers; the lowest key is served first. The core
compiles it, and Python can call it. Nothing here or in a policy file imports vLLM, so a
policy can move to vLLM's own scheduler plugins (RFC 51608) unchanged.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature

from serving.contracts import SLO

LEAST_WEIGHT = 1e-9  # so that keys divide by no zero


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request as policies see it.

    Attributes:
        arrival_s: arrival on the engine's clock.
        deadline_s: when its first token is due (or, for end-to-end SLOs, when
            decoding must start); infinity without an SLO.
        prompt_tokens: prompt tokens not yet in the KV cache.
        priority: vLLM's request priority, lower first.
        weight: what it counts for, by the contract it came under; above 0, and 1 is the usual.
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


Key = tuple[float, float]


class Policy:
    """One scheduling policy.

    Attributes:
        name: as decisions name it.
        key: gives one number or two. Its arguments say what it looks at: fields of
            `RequestView`; `ttft_s`, `tpot_s`, `e2e_s`, the targets, infinite without one;
            `prefill_s`, predicted seconds of prefill; fields of `PolicyContext`; and the
            policy's own parameters.
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
    key: Callable[..., float | Key]
    demotes = False
    starvation_free = False
    is_stock = False
    shares = False
    follows_load = False
    needs_lengths = False
    default_params: Mapping[str, float] = {}
    param_bounds: Mapping[str, tuple[float, float]] = {}
    param_choices: Mapping[str, tuple[float, ...]] = {}

    def key_of(self, view: RequestView, context: PolicyContext) -> Key:
        """The key as the core computes it: two numbers, the second 0 where there is one."""
        slo = view.slo
        known = {name: getattr(view, name) for name in view.__slots__}
        known |= {name: getattr(context, name) for name in context.__slots__}
        known |= {**context.params, "prefill_s": context.prefill_s(view)}
        known |= {"ttft_s": seconds(slo.ttft_ms), "tpot_s": seconds(slo.tpot_ms)}
        known |= {"e2e_s": seconds(slo.e2e_ms)}
        key = self.key(*(known[name] for name in signature(self.key).parameters))
        return key if isinstance(key, tuple) else (key, 0.0)


def seconds(target_ms: float | None) -> float:
    """A target in seconds; infinite where nothing was promised."""
    return math.inf if target_ms is None else target_ms / 1000
