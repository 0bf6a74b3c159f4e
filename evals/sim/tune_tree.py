"""Which fixed arm goes with which states, learnt on a suite's development half?

Each of a few fixed arms runs each case for the whole time. A window of such a run is a row: the
controller's states at its start, and for each of the arms how many of the window's requests missed
their SLOs. `evals.arms.tree` makes a tree of the rows: of depth 1 for `threshold`; for `tree` the
depth that did best when it switched.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evals.arms.case import SimulatedCase
from evals.arms.engine import build_simulated
from evals.arms.switching import States, follow_states, window_s
from evals.arms.tree import grow, leaf_of
from evals.result.metrics import CaseRun
from evals.suite.tuned import Node

DEPTHS = (2, 3, 4)
Floats = NDArray[np.float64]
# A case's states in each window, and misses: (runs x windows, states), (runs x windows, arms).
Rows = tuple[Floats, Floats]


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


def trees(
    rows: Sequence[Rows], names: Sequence[str], arms: Sequence[str]
) -> list[tuple[Node, ...]]:
    """The trees of depth 1 and of DEPTHS; windows in which nothing could differ are left out."""
    states = np.concatenate([each[0] for each in rows])
    misses = np.concatenate([each[1] for each in rows])
    matters = misses.max(axis=1) > misses.min(axis=1)
    if not matters.any():
        return [((arms[0],),)] * (1 + len(DEPTHS))
    return [grow(states[matters], misses[matters], names, arms, depth) for depth in (1, *DEPTHS)]


def worth_of(job: tuple[SimulatedCase, tuple[tuple[Node, ...], ...]]) -> list[float]:
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
