"""How long will a step take? Fitted online from the steps the engine really ran.

T = base + per_prefill*P + per_decode*D + per_context*C + per_square*Q (see
`contracts.CostCoefficients`). Exponentially forgetting least squares: the normal
equations are updated with each step and solved, non-negative (scipy's NNLS, Lawson
and Hanson 1974), every `REFIT_STEPS` steps, which costs well under a millisecond.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from serving.contracts import CostCoefficients
from serving.perception.stored import stored_array, stored_number

REFIT_STEPS = 32
_FORGET = 0.998  # per step: about 500 steps of memory
_OUTLIER = 5.0  # a step this many times longer than predicted is a stall, not a sample
_PRIOR_STEPS = 4.0
_RATIO_STEP = 0.01
_LARGEST = 1e30  # of stored sums: keeps the arithmetic of a restored fit finite
# Typical size of each feature, so that the equations are well conditioned.
_SCALE = np.array([1.0, 500.0, 20.0, 1e4, 1e5])
DEFAULT_COST = CostCoefficients(0.01, 1e-4, 1e-4, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StepShape:
    """What one step had to compute; the features of the cost model."""

    prefill_tokens: int = 0
    decodes: int = 0
    decode_context: int = 0
    prefill_square: int = 0

    def seconds(self, cost: CostCoefficients) -> float:
        """Step time under given coefficients."""
        return (
            cost.base_s
            + cost.per_prefill_token_s * self.prefill_tokens
            + cost.per_decode_s * self.decodes
            + cost.per_context_token_s * self.decode_context
            + cost.per_square_s * self.prefill_square
        )


def step_shape(scheduled: Mapping[str, int], requests: Mapping[str, Any]) -> StepShape:
    """Shape of a step that vLLM has just scheduled.

    Args:
        scheduled: request id -> tokens of this step.
        requests: vLLM's requests, `num_computed_tokens` already advanced by `scheduled`.
    """
    prefill = decodes = context = square = 0
    for request_id, count in scheduled.items():
        request = requests[request_id]
        before = request.num_computed_tokens - count
        if count == 1 and before >= request.num_prompt_tokens:
            decodes += 1
            context += before
        else:
            prefill += count
            square += count * before
    return StepShape(prefill, decodes, context, square)


class CostModel:
    """Predicts step times and learns from measured ones.

    Attributes:
        coefficients: the present fit.
        margin: 90th percentile of measured/predicted - 1, at least 0: the safety factor.
        bias: mean of measured/predicted - 1 (EWMA).
        samples: steps learned from since the start.
    """

    def __init__(self, prior: CostCoefficients = DEFAULT_COST) -> None:
        self.coefficients = prior
        self.margin, self.bias, self.samples = 0.05, 0.0, 0
        theta = np.array(astuple(prior)) * _SCALE
        # The prior counts like a few steps of each kind, and fades like them.
        self._gram = _PRIOR_STEPS * 1e-2 * np.eye(5)
        self._moment = self._gram @ theta
        self._q90 = 0.0
        self._rows: list[tuple[float, ...]] = []  # steps since the last fit

    def predict(self, shape: StepShape) -> float:
        """Seconds that a step of this shape will take."""
        return shape.seconds(self.coefficients)

    def learn(self, shape: StepShape, measured_s: float) -> None:
        """Take in one measured step; stalls and non-positive times are left out."""
        predicted_s = max(self.predict(shape), 1e-6)
        ratio = measured_s / predicted_s
        if measured_s <= 0 or (self.samples > REFIT_STEPS and ratio > _OUTLIER):
            return
        self.samples += 1
        self.bias += 0.02 * (ratio - 1.0 - self.bias)
        # Stochastic quantile tracking (Robbins-Monro): up 0.9, down 0.1 steps.
        self._q90 += _RATIO_STEP * (0.9 if ratio - 1.0 > self._q90 else -0.1)
        self.margin = min(max(self._q90, 0.0), 0.5)
        self._rows.append((
            1.0, shape.prefill_tokens, shape.decodes, shape.decode_context, shape.prefill_square,
            measured_s,
        ))  # fmt: skip
        if len(self._rows) == REFIT_STEPS:
            self._fold()
            self._refit()

    def state(self) -> dict[str, Any]:
        """A copy of what was learned, for `restore`."""
        return {
            "coefficients": list(astuple(self.coefficients)),
            "margin": self.margin,
            "bias": self.bias,
            "q90": self._q90,
            "gram": self._gram.copy(),
            "moment": self._moment.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` holds, or nothing of it.

        `samples` starts anew: where the machine has changed, the outlier rule must not
        keep the model from noticing.

        Raises:
            ValueError: names the entry that does not fit.
        """
        fit = CostModel(CostCoefficients(
            *stored_array(state, "coefficients", (5,), largest=3600.0).tolist()
        ))  # fmt: skip
        fit.margin = stored_number(state, "margin", 0.0, 0.5)
        fit.bias = stored_number(state, "bias", -1.0, 1e6)
        fit._q90 = stored_number(state, "q90", -2.0, 1e6)
        fit._gram = stored_array(state, "gram", (5, 5), largest=_LARGEST)
        fit._moment = stored_array(state, "moment", (5,), largest=_LARGEST)
        if not np.allclose(fit._gram, fit._gram.T):
            raise ValueError("gram is not symmetric")
        trial = CostModel()
        trial._gram, trial._moment = fit._gram, fit._moment
        try:  # what cannot be solved now would fail inside a step later
            trial._refit()
        except (RuntimeError, np.linalg.LinAlgError) as error:
            raise ValueError(f"gram and moment have no fit: {error}") from error
        self.__dict__.update(fit.__dict__)

    def _fold(self) -> None:
        rows = np.array(self._rows)
        self._rows = []
        # Relative weights: an error of 10% counts the same in short and long steps.
        floor_s = np.maximum(rows[:, 5], 1e-4)
        fade = _FORGET ** np.arange(len(rows) - 1, -1, -1)  # the latest counts in full
        scaled = rows[:, :5] / _SCALE / floor_s[:, None]
        faded = scaled * fade[:, None]
        self._gram = _FORGET ** len(rows) * self._gram + faded.T @ scaled
        self._moment = _FORGET ** len(rows) * self._moment + faded.T @ (rows[:, 5] / floor_s)

    def _refit(self) -> None:
        # min |A x - y| with A'A = gram, A'y = moment: a square root of gram stands in for A.
        values, vectors = np.linalg.eigh(self._gram)
        root = np.sqrt(np.clip(values, 1e-12, None))
        theta, _ = nnls(root[:, None] * vectors.T, (vectors.T @ self._moment) / root)
        self.coefficients = CostCoefficients(*(float(v) for v in theta / _SCALE))
