"""`mlfq`: multi-level feedback queue that is joined at the level the prompt demands."""

import math

from serving.policies.base import Policy, PolicyCard


def key(
    arrival_s: float, prefill_s: float, attained_tokens: float, decode_s_per_token: float,
    quantum_s: float, levels: float,
) -> tuple[float, float]:  # fmt: skip
    """(level, arrival)."""
    quanta = (prefill_s + attained_tokens * decode_s_per_token) / quantum_s
    if quanta <= 1.0:
        return 0.0, arrival_s
    # quanta = m * 2^exponent with 0.5 <= m < 1, so this is the rounded-up logarithm.
    m, exponent = math.frexp(quanta)
    level = exponent - 1 if m == 0.5 else exponent
    return min(float(level), math.floor(levels) - 1.0), arrival_s


class Mlfq(Policy):
    """Key: (level, a); level l has a quantum of quantum_s * 2^l seconds.

    A request stands in the first level whose quantum covers its prefill plus, after a
    preemption, the decoding that it has had: c + attained*tau. The last level takes the
    rest. First come, first served within a level. Weights do nothing: levels are of work.

    Source: skip-join MLFQ of FastServe (arXiv 2305.05920), where the prompt's length,
    unlike the answer's, is known at arrival. Its promotion against starvation is the
    queue's ceiling here.

    Regime: mixed prompt lengths and answers of unpredictable length.
    """

    name = "mlfq"
    card = PolicyCard(
        helps="mixed prompt lengths and unpredictable answers; needs no length predictor",
        hurts="long prompts under steady load; within a level it is first come, first served",
    )
    default_params = {"quantum_s": 0.02, "levels": 8.0}
    param_bounds = {"quantum_s": (0.001, 1.0), "levels": (1.0, 16.0)}
    key = staticmethod(key)
