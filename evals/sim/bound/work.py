"""How much of an engine does a request take at the very least, if it is to meet its SLOs?

Called by `upper_bound`. Everything here is per request and says nothing about a schedule;
the symbols are those of `CostCoefficients`, the rules those of vLLM's scheduler, and where
SGLang's allow more, SGLang's:

- A step starts when the request has arrived and shows its tokens when it ends; it gives a
  request at most one output token and computes at most `token_budget` tokens in all, of at
  most `max_active_requests` requests, and holds their context in the KV cache. Tokens are
  counted there, not blocks: SGLang fills every block.
- An answer ends where the context or the KV cache does, two tokens before as SGLang has it.
- Prompt: p tokens, with chunks of at most the budget. Sum of chunk*context is
  (p^2 - sum chunk^2) / 2, least when as many chunks as possible are full.
- Output token k >= 2: either a decode, per_decode + per_context*(p+k-2), or, after a
  preemption, the prompt once more and at least one token beyond, per_prefill*(p+1).
  The smaller of the two counts, so preempting cannot undercut the bound. Each token
  has steps of its own: those after token k-1 up to the one that shows token k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

Floats = NDArray[np.float64]
_ROUNDING_S = 1e-6  # what summing step times may be off by: met exactly must stay met


@dataclass(frozen=True, slots=True)
class LeastWork:
    """Arrays over the requests that can meet their SLOs on an idle engine.

    The prompt is computed between `release_s` and `first_due_s`, the tokens after the first
    between `first_s` and `due_s`: no step outside counts. `*_steps` are steps that the
    request takes part in, `*_kv_tokens` tokens it holds in the cache, summed over them.
    """

    release_s: Floats
    first_s: Floats
    first_due_s: Floats
    due_s: Floats
    prefill_s: Floats
    decode_s: Floats
    prefill_steps: Floats
    decode_steps: Floats
    prefill_kv_tokens: Floats
    decode_kv_tokens: Floats


def least_work(
    requests: Sequence[TraceRequest],
    profile: EngineProfile,
    settings: EngineSettings,
    until_s: float,
) -> LeastWork:
    """What each request takes at least; requests that cannot be met alone are left out.

    No step starts after `until_s`; the last one may end `longest_step_s` later.
    """
    cost, budget = profile.cost, profile.token_budget
    prompt = np.array([r.prompt_tokens for r in requests], float)
    room = min(profile.max_model_len, profile.kv_blocks * profile.block_size) - 2 - prompt
    output = np.maximum(np.minimum([r.output_tokens for r in requests], room), 1.0)
    release_s = np.array([r.arrival_s for r in requests], float)
    ttft_s, tpot_s, e2e_s = _targets_s(requests, settings)
    end_s = until_s + longest_step_s(profile) + _ROUNDING_S

    full = prompt // budget
    rest = prompt - full * budget
    square = (prompt**2 - full * budget**2 - rest**2) / 2
    prefill_s = cost.per_prefill_token_s * prompt + cost.per_square_s * square
    prefill_steps = np.ceil(prompt / budget)
    decodes = output - 1
    decode_s = _least_decode_s(prompt, decodes, profile)

    first_s = release_s + prefill_s + cost.base_s * prefill_steps
    fastest_s = decode_s + cost.base_s * decodes
    due_s = np.minimum(end_s, release_s + e2e_s)
    first_due_s = np.minimum(release_s + ttft_s, due_s - fastest_s)
    paced_s = np.where(decodes > 0, decodes * np.where(decodes > 0, tpot_s, 0.0), 0.0)
    due_s = np.minimum(due_s, first_due_s + paced_s)
    can = (room >= 0) & (first_s <= first_due_s) & (fastest_s <= paced_s)
    held = decodes * prompt + decodes * (decodes + 1) / 2  # p+1, p+2, ...: the new one as well
    columns = (
        release_s, first_s, first_due_s, due_s, prefill_s, decode_s, prefill_steps, decodes,
        prompt, held,
    )  # fmt: skip
    return LeastWork(*(column[can] for column in columns))


def longest_step_s(profile: EngineProfile) -> float:
    """No step of this engine takes longer, in seconds."""
    cost, budget = profile.cost, profile.token_budget
    per_token_s = max(cost.per_prefill_token_s, cost.per_decode_s)
    context = min(
        profile.kv_blocks * profile.block_size, profile.max_active_requests * profile.max_model_len
    )
    square_s = cost.per_square_s * budget * profile.max_model_len
    return cost.base_s + budget * per_token_s + cost.per_context_token_s * context + square_s


def _least_decode_s(prompt: Floats, decodes: Floats, profile: EngineProfile) -> Floats:
    """Sum over j < decodes of min(per_decode + per_context*(p+j), per_prefill*(p+1))."""
    cost = profile.cost
    start_s = cost.per_decode_s + cost.per_context_token_s * prompt
    again_s = cost.per_prefill_token_s * (prompt + 1)
    if cost.per_context_token_s > 0:
        below = np.floor((again_s - start_s) / cost.per_context_token_s) + 1
    else:
        below = np.where(start_s <= again_s, decodes, 0.0)
    below = np.minimum(np.maximum(below, 0.0), decodes)
    growth_s = cost.per_context_token_s * below * (below - 1) / 2
    least_s: Floats = below * start_s + growth_s + (decodes - below) * again_s
    return least_s


def _targets_s(
    requests: Sequence[TraceRequest], settings: EngineSettings
) -> tuple[Floats, Floats, Floats]:
    """TTFT, TPOT and end-to-end targets in seconds; infinite where there is none."""
    default = settings.slo_of(settings.contract.default_class) or SLO()
    slos = [r.slo or settings.slo_of(r.slo_class) or default for r in requests]

    def seconds(targets_ms: list[float | None]) -> Floats:
        values = [np.inf if ms is None else ms / 1000 + _ROUNDING_S for ms in targets_ms]
        return np.array(values, float)

    return (
        seconds([slo.ttft_ms for slo in slos]),
        seconds([slo.tpot_ms for slo in slos]),
        seconds([slo.e2e_ms for slo in slos]),
    )
