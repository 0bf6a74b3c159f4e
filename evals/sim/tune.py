"""What do the arms that learn find on a suite's development half? Called by `hmas eval tune`.

For each machine of the suite: vLLM's options, the best fixed arm, a threshold and a tree. Nothing
else than the development half is read, whatever half the suite reports on.

vLLM's token budget, batch and admission jointly: every combination of a grid on every case, then
the grid is widened wherever the best combination lies at its edge, until it lies inside or the edge
is a limit of the machine. A combination's worth is the mean over cases of the share of requests
that met their SLOs.

For the tree each of a few fixed arms runs each case for the whole time. A window of such a run is a
row: the controller's states at its start, and for each of the arms how many of the window's
requests missed their SLOs. `evals.arms.switching` makes a tree of the rows: of depth 1 for
`threshold`; for `tree` the depth that did best when it switched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evals.arms.case import SimulatedCase
from evals.arms.engine import build_simulated
from evals.arms.fixed import FIXED_ARMS, run_fixed
from evals.arms.stock import engine_with
from evals.arms.switching import STATES, States, follow_states, grow, leaf_of, window_s
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.result.metrics import CaseRun
from evals.result.run_result import git_state
from evals.sim.suite_run import RunOptions, all_cases
from evals.sim.workers import Workers
from evals.suite.arms import parse_arm
from evals.suite.contenders import STOCK
from evals.suite.suite import Suite
from evals.suite.tuned import DEVELOPMENT, Node, StockSetting, TunedFile, TunedMachine
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
DEPTHS = (2, 3, 4)
Floats = NDArray[np.float64]
# A case's states in each window, and misses: (runs x windows, states), (runs x windows, arms).
Rows = tuple[Floats, Floats]
Answer = TypeVar("Answer")
FINALISTS = 6  # the best fixed arms, among which threshold and tree choose


def tune_stock(
    profile: EngineProfile, worths_of: Callable[[tuple[StockSetting, ...]], list[list[float]]]
) -> tuple[StockSetting, dict[str, str], float]:
    """The best setting of a machine, why the search ended there by option, its worth.

    `worths_of` says for each case what each setting is worth.
    """
    grid, tried = first_grid(profile), dict[Setting, float]()
    while True:
        new = [each for each in product(*grid) if each not in tried and _starts(each)]
        if new:
            settings = tuple(as_options(profile, each) for each in new)
            worths = np.mean(worths_of(settings), axis=0)
            tried |= dict(zip(new, worths.tolist(), strict=True))
        best = max(tried, key=lambda each: tried[each])
        wider = widened(grid, best)
        if wider == grid:
            return as_options(profile, best), _why(best, grid), tried[best]
        grid = wider


def worths_of_settings(job: tuple[SimulatedCase, tuple[StockSetting, ...]]) -> list[float]:
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


def rows_of(job: tuple[SimulatedCase, tuple[str, ...]]) -> Rows:
    """The rows of one case, the windows of one run after those of another."""
    case, arms = job
    states, misses = [], []
    for name in arms:
        seen: list[States] = []

        def stay(now: States, name: str = name, seen: list[States] = seen) -> str:
            seen.append(now)
            return name

        run = follow_states(case, build_simulated, stay)
        states.append([list(each.values()) for each in seen])
        misses.append(_missed(case, run, len(seen)))
    fewest = min(len(each) for each in states)
    columns = np.stack([each[:fewest] for each in misses], axis=1)
    return np.concatenate([each[:fewest] for each in states]), np.tile(columns, (len(arms), 1))


def trees_of(
    rows: Sequence[Rows], names: Sequence[str], arms: Sequence[str]
) -> list[tuple[Node, ...]]:
    """The trees of depth 1 and of DEPTHS; windows in which nothing could differ are left out."""
    states = np.concatenate([each[0] for each in rows])
    misses = np.concatenate([each[1] for each in rows])
    matters = misses.max(axis=1) > misses.min(axis=1)
    if not matters.any():
        return [((arms[0],),)] * (1 + len(DEPTHS))
    return [grow(states[matters], misses[matters], names, arms, depth) for depth in (1, *DEPTHS)]


def worths_of_trees(job: tuple[SimulatedCase, tuple[tuple[Node, ...], ...]]) -> list[float]:
    """For each tree the share of a case's counted requests that met their SLOs."""
    case, tried = job
    return [
        case.share_met(follow_states(case, build_simulated, partial(leaf_of, nodes)))
        for nodes in tried
    ]


def _missed(case: SimulatedCase, run: CaseRun, windows: int) -> Floats:
    counted = [one for one in run.outcomes if case.span.counts(one.arrival_s) and not one.met]
    places = np.array([one.arrival_s for one in counted]) // window_s(case)
    return np.bincount(places.astype(np.int64), minlength=windows).astype(np.float64)[:windows]


def for_tuning(suite: Suite, seeds: int) -> Suite:
    """The suite on its development half; one arm, since which is run is not the suite's matter."""
    blocks = tuple(range(seeds))
    return suite.model_copy(update={"half": DEVELOPMENT, "seeds": blocks, "arms": (STOCK,)})


def tune(
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    options: RunOptions,
    progress: CaseProgress,
) -> TunedFile:
    """Tune on the workloads of a suite that `for_tuning` made.

    Raises:
        ValueError: a workload is of another half.
        WorkerError: a job failed.
    """
    if strange := [each.scenario for each in workloads if each.half != DEVELOPMENT]:
        raise ValueError(f"{strange[0]}: not of the half {DEVELOPMENT!r}")
    with Workers(options.jobs, progress) as workers:
        cases = all_cases(workers, suite, workloads, profiles, options)
        machines = {
            name: tuned_on(workers, [one for one in cases if one.profile.name == profile.name])
            for name, profile in profiles.items()
        }
    return TunedFile(
        suite=suite.name, half=suite.half, seeds=suite.every_seed,
        commit=str(git_state().get("commit", "unknown")),
        date=datetime.now(UTC).date().isoformat(), machines=machines,
    )  # fmt: skip


def fixed_worths(job: tuple[SimulatedCase, tuple[str, ...]]) -> list[float]:
    """For each fixed arm the share of a case's counted requests that met their SLOs."""
    case, names = job
    arms = [replace(case, arm=parse_arm(name)) for name in names]
    return [case.share_met(run_fixed(arm, build_simulated)) for arm in arms]


def tuned_on(workers: Workers, cases: Sequence[SimulatedCase]) -> TunedMachine:
    """What pays most on the machine of these cases: means over cases, which weigh the same."""

    def over_cases(function: Callable[[Any], Answer], tried: Any, what: str) -> list[Answer]:
        def title(job: tuple[SimulatedCase, Any]) -> str:
            return f"{job[0].scenario} {job[0].load:g}x seed {job[0].seed}: {what}"

        jobs = [(case, tried) for case in cases]
        return workers.run(function, jobs, title, lambda job, _: title(job))

    stock, limits, met = tune_stock(
        cases[0].profile,
        lambda settings: over_cases(worths_of_settings, settings, f"{len(settings)} settings"),
    )
    worths = over_cases(fixed_worths, FIXED_ARMS, f"{len(FIXED_ARMS)} fixed arms")
    means = np.mean(worths, axis=0)
    ranked = [FIXED_ARMS[i] for i in np.argsort(-means, kind="stable")]
    finalists = tuple(ranked[:FINALISTS])
    trees = tuple(trees_of(over_cases(rows_of, finalists, "states"), STATES, finalists))
    shares = np.mean(over_cases(worths_of_trees, trees, "trees"), axis=0)
    deep = 1 + int(np.argmax(shares[1:]))
    return TunedMachine(
        stock=stock, limits=limits, best_fixed=ranked[0], threshold=trees[0], tree=trees[deep],
        met={
            "vllm-tuned": met, "best-fixed": float(means.max()),
            "threshold": float(shares[0]), "tree": float(shares[deep]),
        },
    )  # fmt: skip
