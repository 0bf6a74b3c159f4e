"""What is known of each step that an engine ran? The step log, as written and as read.

One line of comma-separated numbers per step: when it ended (Unix seconds), how long it
took (seconds), and its shape. Written by `step_log` inside vLLM, read by the calibration
and the fidelity run; the simulator's steps take the same form.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.contracts import CostCoefficients
from serving.perception.cost_model import StepShape

FEATURES = ("prefill_tokens", "decodes", "decode_context", "prefill_square")

FloatArray = npt.NDArray[np.float64]


class CalibrationError(RuntimeError):
    """A calibration or a fidelity run that cannot be had; says what to do."""


def line_of(ended_s: float, seconds: float, shape: StepShape) -> str:
    """One step as a line of the log."""
    counts = ",".join(str(getattr(shape, name)) for name in FEATURES)
    return f"{ended_s:.6f},{seconds:.6f},{counts}\n"


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps in order: n ends in seconds, n durations in seconds, n x 4 features."""

    ended_s: FloatArray
    seconds: FloatArray
    shapes: FloatArray

    def __len__(self) -> int:
        return len(self.seconds)

    def between(self, from_s: float, to_s: float) -> "Steps":
        """The steps that ended in that time."""
        return self.chosen((self.ended_s >= from_s) & (self.ended_s <= to_s))

    def chosen(self, keep: npt.NDArray[np.bool_]) -> "Steps":
        """The steps where `keep` (n) is true."""
        return Steps(self.ended_s[keep], self.seconds[keep], self.shapes[keep])

    def predicted_s(self, cost: CostCoefficients) -> FloatArray:
        """What the cost model says of these shapes, n seconds."""
        coefficients: FloatArray = np.array(astuple(cost))
        predicted: FloatArray = self.design() @ coefficients
        return predicted

    def design(self) -> FloatArray:
        """The matrix that the cost model's coefficients multiply, n x 5."""
        return np.column_stack([np.ones(len(self)), self.shapes])


def steps_of(rows: Sequence[Sequence[float]]) -> Steps:
    """Rows of (ended_s, seconds, four features) as arrays."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 2 + len(FEATURES))
    return Steps(table[:, 0], table[:, 1], table[:, 2:])


def joined(parts: Sequence[Steps]) -> Steps:
    """Several logs as one, in the order given."""
    return Steps(
        np.concatenate([part.ended_s for part in parts]),
        np.concatenate([part.seconds for part in parts]),
        np.concatenate([part.shapes for part in parts]),
    )


def read_steps(path: Path) -> Steps:
    """The steps logged so far; a line that is being written is left for later.

    Raises:
        CalibrationError: there is no log, or a line is none of a step log; names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CalibrationError(
            f"no step log at {path} ({error.strerror}): start the server with "
            f"HMAS_STEP_LOG={path.resolve()} hmas serve "
            "--scheduler-cls evals.checks.fidelity.step_log.step_log_scheduler"
        ) from error
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = tuple(float(cell) for cell in line.split(","))
        except ValueError:
            row = ()
        if len(row) != 2 + len(FEATURES):
            raise CalibrationError(
                f"{path}:{number}: expected {2 + len(FEATURES)} numbers, got {line[:80]!r}: "
                "is this a step log?"
            )
        rows.append(row)
    return steps_of(rows)
