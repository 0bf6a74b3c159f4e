"""`mlfq`: multi-level feedback queue that is joined at the level the prompt demands."""

import math

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView


class Mlfq(Policy):
    """Key: (level, a); level l has a quantum of quantum_s * 2^l seconds.

    A request stands in the first level whose quantum covers its prefill plus, after a
    preemption, the decoding that it has had: c + attained*tau. The last level takes the
    rest. First come, first served within a level.

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

    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """(level, arrival)."""
        work_s = context.prefill_s(view) + view.attained_tokens * context.decode_s_per_token
        quanta = work_s / context.params["quantum_s"]
        if quanta <= 1.0:
            return (0, view.arrival_s)
        # quanta = m * 2^exponent with 0.5 <= m < 1, so this is the rounded-up logarithm.
        m, exponent = math.frexp(quanta)
        level = exponent - 1 if m == 0.5 else exponent
        last = int(context.params["levels"]) - 1
        return (level if level < last else last, view.arrival_s)
