"""How long will a step take, and what does a measured step change in that?

T = base + per_prefill*P + per_decode*D + per_context*C + per_square*Q (see
`contracts.CostCoefficients`). Least squares with exponential forgetting: each step goes into the
normal equations, and every `REFIT_STEPS` steps they are solved for coefficients of at least 0.
"""

from collections.abc import Sequence

import numpy as np

from serving.core.jit import compiled_in_place

REFIT_STEPS = 32
COEFFICIENTS = (
    "base_s", "per_prefill_token_s", "per_decode_s", "per_context_token_s", "per_square_s",
)  # fmt: skip
_UNKNOWNS = len(COEFFICIENTS)
COST = np.dtype([
    *((name, "f8") for name in COEFFICIENTS),
    ("margin", "f8"),  # 90th percentile of measured/predicted - 1, at least 0: the safety factor
    ("bias", "f8"),  # mean of measured/predicted - 1
    ("q90", "f8"),  # the percentile before its bounds
    ("samples", "i8"),  # steps learned from since the start
    ("since_fit", "i8"),  # of them, those that the coefficients do not know yet
    ("gram", "f8", (_UNKNOWNS, _UNKNOWNS)),
    ("moment", "f8", (_UNKNOWNS,)),
    ("best", "f8", (_UNKNOWNS,)),  # and the two below: scratch of a fit
    ("tried", "f8", (_UNKNOWNS,)),
    ("root", "f8", (_UNKNOWNS, _UNKNOWNS)),
])  # fmt: skip
_FORGET = 0.998  # per step: about 500 steps of memory
_OUTLIER = 5.0  # a step this many times longer than predicted is a stall, not a sample
_PRIOR_STEPS = 4.0
_RATIO_STEP = 0.01
_BIAS_STEP = 0.02
_LARGEST_MARGIN = 0.5
_LEAST_S = 1e-4  # shorter steps weigh no more
_LEAST_PREDICTED_S = 1e-6
# Typical size of each feature, so that the equations are well conditioned.
_SCALE = np.array([1.0, 500.0, 20.0, 1e4, 1e5])
_INDEPENDENT = 1e-14  # a column with less than this part of its own is a sum of the others


def new_cost(coefficients: Sequence[float]) -> np.ndarray:
    """A cost model before its first step: COST of shape (1,).

    Args:
        coefficients: the five, in the order of COEFFICIENTS. They count like a few steps of
            each kind, and fade like them.
    """
    cost = np.zeros(1, COST)
    for name, value in zip(COEFFICIENTS, coefficients, strict=True):
        cost[name] = value
    cost["margin"] = 0.05
    cost["gram"] = _PRIOR_STEPS * 1e-2 * np.eye(_UNKNOWNS)
    cost["moment"] = _PRIOR_STEPS * 1e-2 * (np.array(coefficients) * _SCALE)
    return cost


@compiled_in_place
def seconds_at(
    base_s: float, per_prefill_token_s: float, per_decode_s: float, per_context_token_s: float,
    per_square_s: float, prefill_tokens: int, decodes: int, decode_context: int,
    prefill_square: int,
) -> float:  # fmt: skip
    """Step time under given coefficients."""
    return (
        base_s
        + per_prefill_token_s * prefill_tokens
        + per_decode_s * decodes
        + per_context_token_s * decode_context
        + per_square_s * prefill_square
    )


@compiled_in_place
def step_seconds(
    cost: np.ndarray, prefill_tokens: int, decodes: int, decode_context: int, prefill_square: int
) -> float:
    """Seconds that a step will take by what was learned."""
    fit = cost[0]
    return seconds_at(
        fit.base_s, fit.per_prefill_token_s, fit.per_decode_s, fit.per_context_token_s,
        fit.per_square_s, prefill_tokens, decodes, decode_context, prefill_square,
    )  # fmt: skip


@compiled_in_place
def learn(
    cost: np.ndarray, prefill_tokens: int, decodes: int, decode_context: int, prefill_square: int,
    measured_s: float,
) -> bool:  # fmt: skip
    """Take in one measured step; stalls and times that are not positive are left out.

    Returns:
        Whether the coefficients were fitted anew.
    """
    fit = cost[0]
    predicted_s = step_seconds(cost, prefill_tokens, decodes, decode_context, prefill_square)
    ratio = measured_s / max(predicted_s, _LEAST_PREDICTED_S)
    if not measured_s > 0.0 or (fit.samples > REFIT_STEPS and ratio > _OUTLIER):
        return False
    fit.samples += 1
    fit.bias += _BIAS_STEP * (ratio - 1.0 - fit.bias)
    # Stochastic quantile tracking (Robbins-Monro): up 0.9, down 0.1 steps.
    fit.q90 += _RATIO_STEP * (0.9 if ratio - 1.0 > fit.q90 else -0.1)
    fit.margin = min(max(fit.q90, 0.0), _LARGEST_MARGIN)
    # Relative weights: an error of 10% counts the same in short and long steps.
    least_s = max(measured_s, _LEAST_S)
    row = fit.tried
    row[0], row[1], row[2] = 1.0, prefill_tokens, decodes
    row[3], row[4] = decode_context, prefill_square
    for i in range(_UNKNOWNS):
        row[i] /= _SCALE[i] * least_s
    for i in range(_UNKNOWNS):
        for j in range(_UNKNOWNS):
            fit.gram[i, j] = _FORGET * fit.gram[i, j] + row[i] * row[j]
        fit.moment[i] = _FORGET * fit.moment[i] + row[i] * (measured_s / least_s)
    fit.since_fit += 1
    if fit.since_fit < REFIT_STEPS:
        return False
    refit(cost)
    return True


@compiled_in_place
def refit(cost: np.ndarray) -> None:
    """Solve the normal equations for the coefficients."""
    fit = cost[0]
    theta = fit.best
    non_negative_fit(fit.gram, fit.moment, theta, fit.tried, fit.root)
    fit.base_s = theta[0] / _SCALE[0]
    fit.per_prefill_token_s = theta[1] / _SCALE[1]
    fit.per_decode_s = theta[2] / _SCALE[2]
    fit.per_context_token_s = theta[3] / _SCALE[3]
    fit.per_square_s = theta[4] / _SCALE[4]
    fit.since_fit = 0


@compiled_in_place
def non_negative_fit(
    gram: np.ndarray, moment: np.ndarray, best: np.ndarray, tried: np.ndarray, root: np.ndarray
) -> None:
    """Write into `best` the x >= 0 that minimises |A x - y|, A'A = `gram`, A'y = `moment`.

    The least squares over each set of columns is tried, 2^n of them, and the best without a
    negative number wins: some optimum has independent columns (Lawson and Hanson, Solving
    Least Squares Problems, 1974, chapter 23). For a handful of unknowns this takes microseconds,
    and cannot go round in circles. Of equal ones the first wins: a column whose part in the error
    is lost in rounding, because its feature is long unseen, gets 0.

    Args:
        gram: shape (n, n).
        moment: shape (n,).
        best: result, shape (n,).
        tried: scratch, shape (n,).
        root: scratch, shape (n, n).
    """
    unknowns, least = len(moment), 0.0
    for i in range(unknowns):
        best[i] = 0.0
    for chosen in range(1, 1 << unknowns):
        if not _solve(gram, moment, chosen, tried, root):
            continue
        error = 0.0  # |A x - y|^2 - |y|^2
        for i in range(unknowns):
            inner = -2.0 * moment[i]
            for j in range(unknowns):
                inner += gram[i, j] * tried[j]
            error += tried[i] * inner
        if error < least:
            least = error
            for i in range(unknowns):
                best[i] = tried[i]


@compiled_in_place
def _solve(
    gram: np.ndarray, moment: np.ndarray, chosen: int, x: np.ndarray, root: np.ndarray
) -> bool:
    """Least squares over the columns of the bits in `chosen`, by Cholesky's L L' = gram.

    Returns:
        Whether these columns are independent and no x of theirs is negative.
    """
    unknowns = len(moment)
    for i in range(unknowns):
        x[i] = 0.0
        for j in range(unknowns):
            root[i, j] = 0.0  # also for columns that are not chosen, which so count nothing
    for i in range(unknowns):
        if not chosen >> i & 1:
            continue
        for j in range(i):
            if chosen >> j & 1:
                root[i, j] = _rest(gram, root, i, j) / root[j, j]
        pivot = _rest(gram, root, i, i)
        if not pivot > _INDEPENDENT * gram[i, i]:
            return False
        root[i, i] = np.sqrt(pivot)
        x[i] = moment[i]
        for k in range(i):
            x[i] -= root[i, k] * x[k]
        x[i] /= root[i, i]
    for i in range(unknowns - 1, -1, -1):
        if not chosen >> i & 1:
            continue
        for k in range(i + 1, unknowns):
            x[i] -= root[k, i] * x[k]
        x[i] /= root[i, i]
        if not x[i] >= 0.0:
            return False
    return True


@compiled_in_place
def _rest(gram: np.ndarray, root: np.ndarray, i: int, j: int) -> float:
    """What the columns before column `j` leave of an entry of `gram`."""
    rest = gram[i, j]
    for k in range(j):
        rest -= root[i, k] * root[j, k]
    return float(rest)
