"""How often is a reply right, given its log-probability and whether the grammar agrees?

A logistic curve, fitted to outcomes.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from hmas_agents.intent.taught_reader import Calibration

MAX_WRONG = 0.02  # of the cases: read wrongly without asking
_LEAST = 0.5  # who is more likely wrong than right asks


def calibrated(
    logprobs: Sequence[float],
    agrees: Sequence[bool],
    right: Sequence[bool],
    asks: Sequence[bool],
) -> Calibration:
    """The curve by Platt (1999), and the lowest threshold at which few are wrong without asking.

    Args:
        logprobs: of each reply, 0 or less.
        agrees: whether the grammar reads the same changes.
        right: whether it was.
        asks: whether it is a question anyway.
    """
    x, y = np.column_stack([logprobs, agrees]), np.asarray(right, dtype=float)
    # Platt's targets: never quite 0 or 1, so that the curve stays finite where all are right.
    goal = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / (len(y) - y.sum() + 2))

    def cost(curve: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
        share = np.clip(expit(curve[0] + x @ curve[1:]), 1e-9, 1 - 1e-9)
        return float(-np.sum(goal * np.log(share) + (1 - goal) * np.log(1 - share)))

    curve = minimize(cost, (0.0, 1.0, 0.0), method="Nelder-Mead").x
    share = expit(curve[0] + x @ curve[1:])
    wrong = sorted(share[(y == 0) & ~np.asarray(asks)], reverse=True)
    allowed = int(MAX_WRONG * len(x))
    ask_below = max(_LEAST, wrong[allowed] + 1e-3) if len(wrong) > allowed else _LEAST
    return Calibration(*(round(float(each), 4) for each in (*curve, ask_below)))
