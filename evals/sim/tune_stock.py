"""Which options suit stock vLLM on a suite's development half? Token budget, batch, admission.

Jointly: every combination of a grid on every case, then the grid is widened wherever the best
combination lies at its edge, until it lies inside or the edge is a limit of the machine. A
combination's worth is the mean over cases of the share of requests that met their SLOs.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from evals.arms.case import SimulatedCase
from evals.arms.stock import engine_with
from evals.suite.tuned import StockSetting
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile

NO_LIMIT = 0
_FIRST_QUEUED_S = (0.5, 1.0, 2.0, 4.0)
_MOST_BUDGET = 65_536  # no step of the traces needs more: vLLM takes any
_LEAST_SEQUENCES = 4
_LONGEST_QUEUED_S, _SHORTEST_QUEUED_S = 64.0, 1 / 16

# Token budget, sequences, and seconds of prefill that may be queued; infinite is no limit.
Setting = tuple[int, int, float]
Grid = tuple[list[int], list[int], list[float]]
Job = tuple[SimulatedCase, tuple[StockSetting, ...]]


def tune_stock(
    cases: Sequence[SimulatedCase], run_jobs: Callable[[Sequence[Job]], list[list[float]]]
) -> tuple[StockSetting, dict[str, str], float]:
    """The best setting, for each option why the search ended there, and what the setting is worth.

    Args:
        cases: of one machine.
        run_jobs: answers `worth_of` for each job, in order.
    """
    profile = cases[0].profile
    grid, tried = first_grid(profile), dict[Setting, float]()
    while True:
        new = [each for each in product(*grid) if each not in tried and _starts(each)]
        if new:
            settings = tuple(as_options(profile, each) for each in new)
            worths = np.mean(run_jobs([(case, settings) for case in cases]), axis=0)
            tried |= dict(zip(new, worths.tolist(), strict=True))
        best = max(tried, key=lambda each: tried[each])
        wider = widened(grid, best)
        if wider == grid:
            return as_options(profile, best), _why(best, grid), tried[best]
        grid = wider


def worth_of(job: Job) -> list[float]:
    """For each setting the share of a case's counted requests that met their SLOs."""
    case, settings = job
    workload, targets_ms = columns(case.requests, case.profile), case.targets_ms()
    counted = case.counted
    shares = []
    for setting in settings:
        served = engine_with(case, setting).run_columns(workload, until_s=case.span.until_s)
        shares.append(float(served.met(targets_ms)[counted].mean()))
    return shares


def first_grid(profile: EngineProfile) -> Grid:
    """VLLM's own values and some below them."""
    budget, most = profile.token_budget, profile.max_active_requests
    budgets = sorted({max(1, budget // 4), max(1, budget // 2), budget, 2 * budget})
    sequences = sorted({max(1, most // 4), max(1, most // 2), most})
    return budgets, sequences, [*_FIRST_QUEUED_S, np.inf]


def widened(grid: Grid, best: Setting) -> Grid:
    """The grid with one value more wherever the best lies at an edge that is no limit."""
    budgets, sequences, queued = list(grid[0]), list(grid[1]), list(grid[2])
    budget, count, queued_s = best
    if budget == budgets[0] and budget // 2 >= min(sequences):
        budgets.insert(0, budget // 2)
    if budget == budgets[-1] and 2 * budget <= _MOST_BUDGET:
        budgets.append(2 * budget)
    if count == sequences[0] and count // 2 >= _LEAST_SEQUENCES:
        sequences.insert(0, count // 2)
    if queued_s == queued[0] and queued_s / 2 >= _SHORTEST_QUEUED_S:
        queued.insert(0, queued_s / 2)
    if queued_s == queued[-2] and 2 * queued_s <= _LONGEST_QUEUED_S:
        queued.insert(-1, 2 * queued_s)
    return budgets, sequences, queued


def as_options(profile: EngineProfile, setting: Setting) -> StockSetting:
    """VLLM's options; queued tokens are `target_TTFT * prefill_throughput`, as vLLM advises.

    The throughput is that of full prefill steps: budget / (base + per prefill token * budget).
    """
    budget, count, queued_s = setting
    cost = profile.cost
    tokens = NO_LIMIT
    if queued_s < np.inf:
        full_step_s = cost.base_s + cost.per_prefill_token_s * budget
        tokens = max(1, round(queued_s * budget / full_step_s))
    return StockSetting(token_budget=budget, max_num_seqs=count, max_num_queued_tokens=tokens)


def _starts(setting: Setting) -> bool:
    """VLLM does not start with fewer tokens than sequences."""
    return setting[0] >= setting[1]


def _why(best: Setting, grid: Grid) -> dict[str, str]:
    """For each option where in the grid the best lies, and what the limit is if at an edge."""
    budgets, sequences, queued = grid

    def where(value: float, axis: Sequence[float], low: str, high: str) -> str:
        if value == axis[0]:
            return low
        return high if value == axis[-1] else f"inside {axis[0]:g} to {axis[-1]:g}"

    return {
        "token_budget": where(
            best[0], budgets, "vLLM refuses fewer than sequences", "the most that was tried"
        ),
        "max_num_seqs": where(
            best[1], sequences, "the fewest that were tried",
            "the batch that the engine is started with, as for every arm",
        ),
        "max_num_queued_tokens": where(
            best[2], queued, "the least that was tried", "no limit: all are let in"
        ),
    }  # fmt: skip
