"""What does a soak send? Random requests by seed: whole ones, leavers, and bad ones.

Called by `clients`. Odd tenants and SLOs in a well-formed request must be served;
what is broken must be refused with a 4xx and never reach the engine.
"""

import json
import random
from dataclasses import dataclass
from typing import Any, Literal

from evals.load_generator import completion_body
from serving.contracts import TraceRequest

Kind = Literal["whole", "leaver", "bad"]

_LEAVERS, _BAD = 0.15, 0.15  # shares
_PROMPT_TOKENS, _OUTPUT_TOKENS = (1, 400), (1, 64)
_TENANTS = ("acme", "globex", "initech", "umbrella")
_CLASSES = ("interactive", "conversational", "document", "batch", "best_effort")
# Odd, and no reason to refuse: the hook ignores what does not fit.
_ODD_XARGS: tuple[dict[str, Any], ...] = (
    {"slo_ttft_ms": -5, "slo_tpot_ms": 0},
    {"slo_ttft_ms": 1e300, "slo_e2e_ms": 1e-300},
    {"slo_ttft_ms": "soon", "slo_class": 7},
    {"slo_class": "no-such-class", "tenant": ""},
    {"tenant": ["a", 1], "slo_class": ["interactive"]},
    {"tenant": "x" * 500, "slo_tpot_ms": "1e400"},
    {"tenant": "\u202e<script>{}\n", "slo_e2e_ms": "NaN"},
)


@dataclass(frozen=True, slots=True)
class Errand:
    """One request as its client will handle it.

    Attributes:
        kind: `whole` waits for the end, `leaver` goes away earlier, `bad` must be refused.
        body: as sent.
        wait_s: time to the next request.
        leave_after_tokens, leave_after_s: when a leaver goes; the other one is None.
    """

    kind: Kind
    body: bytes
    wait_s: float
    leave_after_tokens: int | None = None
    leave_after_s: float | None = None


def draw_errand(
    rng: random.Random, index: int, *, model: str, rate_rps: float, max_model_len: int
) -> Errand:
    """The next request of a soak; Poisson arrivals at `rate_rps`."""
    wait_s = rng.expovariate(rate_rps)
    body = _good_body(rng, index, model)
    drawn = rng.random()
    if drawn < _BAD:
        return Errand("bad", _bad_body(rng, body, max_model_len), wait_s)
    sent = json.dumps(body).encode()
    if drawn < _BAD + _LEAVERS:
        if rng.random() < 0.5:
            return Errand("leaver", sent, wait_s, leave_after_tokens=rng.randint(1, 20))
        return Errand("leaver", sent, wait_s, leave_after_s=rng.uniform(0.0, 4.0))
    return Errand("whole", sent, wait_s)


def _good_body(rng: random.Random, index: int, model: str) -> dict[str, Any]:
    tenant = f"passer-by-{index}" if rng.random() < 0.1 else rng.choice(_TENANTS)
    low, high = _PROMPT_TOKENS
    request = TraceRequest(
        arrival_s=0.0,
        prompt_tokens=round(low * (high / low) ** rng.random()),
        output_tokens=rng.randint(*_OUTPUT_TOKENS),
        tenant=tenant,
        slo_class=rng.choice(_CLASSES),
    )
    body = completion_body(model, request, rng.randrange(2**31), index)
    if rng.random() < 0.2:  # ends where the model ends it
        # Without a seed of its own: vLLM 0.32 on CPU dies of one (no offset in torch's generator).
        body.update(min_tokens=0, ignore_eos=False, temperature=1.0)
    if rng.random() < 0.2:
        body["vllm_xargs"] |= rng.choice(_ODD_XARGS)
    if rng.random() < 0.05:
        del body["vllm_xargs"]
    return body


def _bad_body(rng: random.Random, body: dict[str, Any], max_model_len: int) -> bytes:
    broken: tuple[dict[str, Any], ...] = (
        {"prompt": [200] * (max_model_len + 1)},
        {"prompt": {"text": "?"}},
        {"max_tokens": -1, "min_tokens": 0},
        {"max_tokens": "many"},
        {"temperature": "hot"},
        {"temperature": -2.0},
        {"model": "no-such-model"},
        {"vllm_xargs": ["tenant", "acme"]},
        {"vllm_xargs": {"tenant": {"name": "acme"}}},
        {"vllm_xargs": {"slo_ttft_ms": None, "tenant": [[1]]}},
    )
    choice = rng.randrange(len(broken) + 3)
    if choice < len(broken):
        return json.dumps(body | broken[choice]).encode()
    whole = json.dumps(body).encode()
    return (b"", b"\xff\xfe not text", whole[: len(whole) // 2])[choice - len(broken)]
