"""Which coefficients explain the steps? The cost model, fitted to measured or estimated ones.

The hook fits the same model online, with a memory of 500 steps; here every step counts.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from evals.machines.steps import FEATURES, CalibrationError, FloatArray, Steps
from serving.contracts import CostCoefficients

LEAST_STEPS = 100
_STALL = 5.0  # as in serving.perception.cost_model: so much longer is no sample
_ROUNDS = 6
_LEAST_S = 1e-6
_QUANTILES = 41  # of the residuals: every 2.5%


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted cost model and how well it fits."""

    cost: CostCoefficients  # the coefficients, none negative
    samples: int  # steps that were fitted
    # stalls, stall_s: steps left out because they took five times what their shape explains, and
    # the seconds they took.
    stalls: int
    stall_s: float
    # error_p50, error_p90: of |measured / predicted - 1| over the fitted steps.
    error_p50: float
    error_p90: float
    total_error: float  # predicted over measured time of all fitted steps, minus 1
    # Condition number of the design matrix with columns of length 1; the larger, the less can the
    # coefficients be told apart.
    condition: float


def fit_cost(steps: Steps) -> Fit:
    """Fit the five coefficients by non-negative least squares.

    Weights are 1 / predicted time, refined in a few rounds: quasi-likelihood with variance
    in proportion to the mean (Wedderburn, Biometrika 61, 1974). Its equations make the
    predicted times add up to the measured ones, which is what throughput depends on.

    Raises:
        CalibrationError: too few steps, or a feature that never occurred.
    """
    if len(steps) < LEAST_STEPS:
        raise CalibrationError(
            f"{len(steps)} steps were measured, {LEAST_STEPS} are needed: calibrate longer "
            "(--seconds)"
        )
    missing = [name for name, column in zip(FEATURES, steps.shapes.T, strict=True)
               if not column.any()]  # fmt: skip
    if missing:
        raise CalibrationError(
            f"no step had any {missing[0]}, so its cost cannot be told: calibrate longer "
            "(--seconds)"
        )
    kept = steps
    cost = _solve(kept, _by_time(kept.seconds))
    for _ in range(_ROUNDS):
        kept = steps.chosen(steps.seconds <= _STALL * steps.predicted_s(cost))
        cost = _solve(kept, _by_time(kept.predicted_s(cost)))
    design = kept.design()
    return Fit(
        cost=cost,
        samples=len(kept),
        stalls=len(steps) - len(kept),
        stall_s=float(steps.seconds.sum() - kept.seconds.sum()),
        **step_errors(kept, cost),
        condition=float(np.linalg.cond(design / np.linalg.norm(design, axis=0))),
    )


def step_errors(steps: Steps, cost: CostCoefficients) -> dict[str, float]:
    """`error_p50`, `error_p90` and `total_error` (see `Fit`) of a cost model on steps."""
    predicted_s = steps.predicted_s(cost)
    p50, p90 = np.percentile(np.abs(steps.seconds / predicted_s - 1), (50, 90))
    total = predicted_s.sum() / steps.seconds.sum() - 1
    return {"error_p50": float(p50), "error_p90": float(p90), "total_error": float(total)}


def fit_relative(steps: Steps) -> CostCoefficients:
    """The coefficients of least squared relative error, none negative.

    For steps without noise of their own, as kernels are estimated: an error of 10% counts the
    same in short and long steps.
    """
    return _solve(steps, 1 / np.maximum(steps.seconds, _LEAST_S))


def residuals(steps: Steps, cost: CostCoefficients) -> tuple[float, ...]:
    """Quantiles of seconds / predicted - 1, evenly spaced from the least to the most."""
    errors = steps.seconds / steps.predicted_s(cost) - 1
    quantiles = np.quantile(errors, np.linspace(0, 1, _QUANTILES))
    return tuple(round(float(value), 4) for value in quantiles)


def _solve(steps: Steps, weight: FloatArray) -> CostCoefficients:
    design = steps.design()
    scale = np.linalg.norm(design, axis=0)
    theta, _ = nnls(design / scale * weight[:, None], steps.seconds * weight)
    return CostCoefficients(*(float(value) for value in theta / scale))


def _by_time(expected_s: FloatArray) -> FloatArray:
    weight: FloatArray = 1 / np.sqrt(np.maximum(expected_s, _LEAST_S))
    return weight
