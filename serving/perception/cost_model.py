"""How long will a step take? `core.cost` for Python: messages in, messages out, and a file.

The model's state is one array, `CostModel.array`; every formula is in `core.cost`.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import numpy as np

from serving.contracts import CostCoefficients
from serving.core import cost as core
from serving.perception.stored import stored_array, stored_number

_LARGEST = 1e30  # of stored sums: keeps the arithmetic of a restored fit finite
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
        return core.seconds_at(
            cost.base_s, cost.per_prefill_token_s, cost.per_decode_s, cost.per_context_token_s,
            cost.per_square_s, self.prefill_tokens, self.decodes, self.decode_context,
            self.prefill_square,
        )  # fmt: skip


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
        array: the state, `core.cost.COST` of shape (1,); the core learns in it, too.
    """

    def __init__(self, prior: CostCoefficients = DEFAULT_COST) -> None:
        _compile()
        self.array = core.new_cost(astuple(prior))

    @property
    def coefficients(self) -> CostCoefficients:
        """The present fit."""
        return CostCoefficients(*(float(self.array[name][0]) for name in core.COEFFICIENTS))

    @property
    def margin(self) -> float:
        """90th percentile of measured/predicted - 1, at least 0: the safety factor."""
        return float(self.array["margin"][0])

    @property
    def bias(self) -> float:
        """Mean of measured/predicted - 1 (EWMA)."""
        return float(self.array["bias"][0])

    @property
    def samples(self) -> int:
        """Steps learned from since the start."""
        return int(self.array["samples"][0])

    def predict(self, shape: StepShape) -> float:
        """Seconds that a step of this shape will take."""
        return shape.seconds(self.coefficients)

    def learn(self, shape: StepShape, measured_s: float) -> None:
        """Take in one measured step; stalls and times that are not positive are left out."""
        core.learn(
            self.array, shape.prefill_tokens, shape.decodes, shape.decode_context,
            shape.prefill_square, float(measured_s),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """A copy of what was learned, for `restore`."""
        return {
            "coefficients": list(astuple(self.coefficients)),
            "margin": self.margin,
            "bias": self.bias,
            "q90": float(self.array["q90"][0]),
            "gram": self.array["gram"][0].copy(),
            "moment": self.array["moment"][0].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` holds, or nothing of it.

        `samples` starts anew: where the machine has changed, the outlier rule must not
        keep the model from noticing.

        Raises:
            ValueError: names the entry that does not fit.
        """
        coefficients = stored_array(state, "coefficients", (5,), largest=3600.0).tolist()
        array = core.new_cost(coefficients)
        array["margin"] = stored_number(state, "margin", 0.0, 0.5)
        array["bias"] = stored_number(state, "bias", -1.0, 1e6)
        array["q90"] = stored_number(state, "q90", -2.0, 1e6)
        gram = stored_array(state, "gram", (5, 5), largest=_LARGEST)
        if not np.allclose(gram, gram.T):
            raise ValueError("gram is not symmetric")
        array["gram"] = gram
        array["moment"] = stored_array(state, "moment", (5,), largest=_LARGEST)
        self.array = array


@cache
def _compile() -> None:
    """Compile what steps call, or load it from disk: no step may wait for that."""
    core.learn(core.new_cost(astuple(DEFAULT_COST)), 0, 0, 0, 0, 0.01)
    StepShape().seconds(DEFAULT_COST)
