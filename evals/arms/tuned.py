"""How well does stock vLLM do with the batch limits that suit the traffic?

The arm `vllm-tuned`: `--max-num-batched-tokens` and `--max-num-seqs` chosen per scenario,
load and seed on the very requests that count. That is hindsight no operator has: it favours
the baseline. First the token budget, then the number of sequences at that budget. The
profile's own values are among the candidates, so it never does worse than stock.
"""

from dataclasses import replace

from evals.arms.best_run import as_chosen, best_run
from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.result.metrics import CaseRun
from serving.engines.profile import EngineProfile

TOKEN_BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
SEQUENCES = (16, 32, 64, 128)


def run_tuned(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The best run of stock vLLM; `chosen` has `token_budget` and `max_num_seqs`."""
    own = case.profile
    budgets, sequences = token_budgets(own), fewer_sequences(own)

    def run(profile: EngineProfile) -> CaseRun:
        return run_stock(case, profile, build_engine)

    profile, best = best_run(case, [replace(own, token_budget=budget) for budget in budgets], run)
    for fewer in sequences:
        narrower = replace(profile, max_active_requests=fewer)
        tried = run(narrower)
        if case.met(tried) > case.met(best):
            profile, best = narrower, tried
    chosen = {"token_budget": profile.token_budget, "max_num_seqs": profile.max_active_requests}
    return as_chosen(best, profile, chosen)


def run_stock(
    case: SimulatedCase, profile: EngineProfile, build_engine: BuildEngine
) -> CaseRun:
    """Stock vLLM with the limits of `profile` on the requests of `case`."""
    engine = build_engine(profile, case.settings, True)
    outcomes = engine.run(case.requests, until_s=case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens)


def token_budgets(profile: EngineProfile) -> list[int]:
    """The profile's own budget, then the listed ones between its batch and its longest request.

    vLLM does not start with fewer tokens than sequences.
    """
    low, high = profile.max_active_requests, profile.max_model_len
    listed = [budget for budget in TOKEN_BUDGETS if low <= budget <= high]
    return list(dict.fromkeys([profile.token_budget, *listed]))


def fewer_sequences(profile: EngineProfile) -> list[int]:
    """The two largest listed numbers below the profile's own.

    A smaller batch has shorter steps; a larger one than the profile's was never measured.
    """
    return [count for count in SEQUENCES if count < profile.max_active_requests][-2:]
