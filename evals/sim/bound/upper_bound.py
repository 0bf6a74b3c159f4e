"""What is the most that any scheduler could have met, and what would limit it?

Called by runs, whose results say their share of it. The bound holds for every scheduler of
the simulated engine, also for one that knows arrivals and lengths beforehand: it may preempt, pause
and size steps as it likes.

Derivation. Let y_i be 1 if request i meets its SLOs. All that i needs happens in steps that
start after its release and end before its due time (`work` says when and how much).
Steps do not overlap, so for each stretch [s, t], with n its steps and w_i the work of i that
must lie inside (0 unless release and due time do), without any step's fixed cost,

    base * n + sum y_i w_i <= t - s.

n is not known, but at least each of these, and each gives a constraint that is linear in y:

- compute: sum y_i (tokens of i) / token_budget;
- slots: sum y_i (steps that i takes part in) / max_active_requests;
- kv: sum y_i (tokens i holds in the cache in them) / (kv_blocks * block_size);
- pace: sum y_i (steps of i) over requests that follow one another, so that no step serves
  two of them. This one knows that a long answer at 30 ms per token needs a step every 30 ms.

The most sum y_i under 0 <= y_i <= 1 bounds the requests met. There are too many stretches
to write down, so those that the present answer violates are added, round by round; fewer
constraints can only raise the bound, so it is valid whenever this stops, on any grid.

It does not rest on the solver's accuracy either: by weak duality any weights u_c >= 0 of the
constraints sum_i a_ci y_i <= 1 give sum y_i <= sum_c u_c + sum_i max(0, 1 - sum_c u_c a_ci),
and that figure is returned. Linear programmes: HiGHS (Huangfu and Hall 2018) through scipy.
The stretches are those of energetic reasoning (Erschler and Lopez 1990).

Not covered: several data-parallel ranks, speculative decoding, what the prefix cache saves, and
another engine's kernels (`other_costs`) where these are faster. Steps take what the cost model
says: noise evens out over many, so a run may exceed the bound by what it leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from evals.sim.bound.windows import Resource, Windows
from evals.sim.bound.work import Floats, least_work
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

Binding = Literal["load", "compute", "slots", "kv", "pace"]
_GRID_POINTS = 1000
_NEW_WINDOWS = 40  # of each resource and round
# Rounds cost more with more requests, and later ones bring less.
_REQUEST_ROUNDS, _FEWEST_ROUNDS, _MOST_ROUNDS = 36_000, 4, 60
_IN_USE = 1e-9


@dataclass(frozen=True, slots=True)
class Bound:
    """What no scheduler can exceed on one workload and engine."""

    # Requests that meet all their SLOs, at most; a fraction may be left of the relaxation.
    met: float
    possible: int  # requests that would meet their SLOs alone on an idle engine
    # What limits `met`: "load" if all that is possible may be met, else what the steps were counted
    # by in the constraints that weigh most.
    binding: Binding


def upper_bound(
    requests: Sequence[TraceRequest],
    profile: EngineProfile,
    settings: EngineSettings,
    until_s: float,
) -> Bound:
    """Bound what any scheduler can meet of `requests`, in order of arrival, until `until_s`.

    An arm with a larger token budget is another engine: for a bound over several arms give the
    profile the largest that any of them tries.
    """
    work = least_work(requests, profile, settings, until_s)
    possible = len(work.release_s)
    if not possible:
        return Bound(0.0, 0, "load")
    met, binding = _relaxed(Windows(work, profile, _GRID_POINTS), possible)
    return Bound(met, possible, binding)


def _relaxed(windows: Windows, possible: int) -> tuple[float, Binding]:
    """The relaxation's optimum over the windows found, and what weighs most in it."""
    rounds = min(max(_REQUEST_ROUNDS // possible, _FEWEST_ROUNDS), _MOST_ROUNDS)
    met = float(possible)
    binding: Binding = "load"
    share = np.ones(possible)
    rows, names = np.empty((0, possible)), np.empty(0, dtype=object)
    for _ in range(rounds):
        found = windows.overfull(share, _NEW_WINDOWS)
        if not found:
            break
        new = [window.need_s / (window.end_s - window.start_s) for window in found]
        rows = np.vstack((rows, *new))
        names = np.append(names, [window.resource for window in found])
        solution = linprog(
            -np.ones(possible), rows, np.ones(len(rows)), bounds=(0, 1), method="highs-ds",
            options={"presolve": False},  # takes longer than it saves
        )  # fmt: skip
        if solution.x is None:  # what was proved before still holds
            break
        weights = np.maximum(-solution.ineqlin.marginals, 0.0)
        proved = float(weights.sum() + np.maximum(0.0, 1.0 - weights @ rows).sum())
        if proved < met:
            met, binding = proved, _heaviest(names, weights)
        share = np.clip(solution.x, 0.0, 1.0)
        used = weights > _IN_USE
        used[-len(found) :] = True  # a new window stays for a round, in case it binds then
        rows, names = rows[used], names[used]
    return met, binding


def _heaviest(names: NDArray[np.object_], weights: Floats) -> Resource:
    shares: dict[Resource, float] = {}
    for name, weight in zip(names, weights, strict=True):
        shares[name] = shares.get(name, 0.0) + float(weight)
    return max(shares, key=lambda name: shares[name])
