"""How would the next window go under another setting?

The twin starts the compiled engine from the engine's present state and tries candidates on the
same drawn futures, beside the loop and never in the engine. Called by the long horizon, which
switches only for a predicted gain that is beyond chance. Without a wall-clock budget (simulated
runs) it is deterministic.
"""

import time
from collections.abc import Iterable, Sequence

from hmas_agents.config import TwinConfig
from hmas_agents.situation import Situation
from hmas_agents.twin.prediction import Calibration, Past, Prediction
from hmas_agents.twin.process import Forecaster, TwinProcess, WorkerLostError
from hmas_agents.twin.question import SHORTEST_S, Answer, Candidate, Question


class Twin:
    """Predicts attainment under each candidate, and keeps score of its own error.

    Args:
        past: what came of earlier predictions, oldest first, from the ledger.
        forecaster: where it computes; None means in a process of its own.

    Attributes:
        calibration: how far reality lay from predictions.
        faults: what went wrong in the last `predict`, as `code: detail`.
        answer: what the last `predict` was made of; None if nothing came.
        wall_s: how long it took.
    """

    def __init__(
        self,
        config: TwinConfig,
        past: Iterable[Past] = (),
        forecaster: Forecaster | None = None,
    ) -> None:
        self._config = config
        self._forecaster = forecaster or TwinProcess()
        self.calibration = Calibration.of(past)
        self.faults: list[str] = []
        self.answer: Answer | None = None
        self.wall_s = 0.0

    def horizon_s(self, situation: Situation) -> float:
        """How far ahead it looks: less where `twin.max_requests` would come before that."""
        rate_rps = len(situation.requests) / max(situation.span_s, 1.0)
        longest_s = self._config.max_requests / max(rate_rps, 1e-9)
        return min(self._config.horizon_s, max(SHORTEST_S, longest_s))

    def start(self) -> None:
        """Get ready, which takes some seconds; does not wait for it."""
        self._forecaster.start()

    def wait_ready(self, limit_s: float | None) -> bool:
        """Wait until it can predict; False when `limit_s` was not enough."""
        try:
            return self._forecaster.wait_ready(limit_s)
        except WorkerLostError:
            return False

    def predict(
        self,
        situation: Situation,
        candidates: Sequence[Candidate],
        *,
        kept: int,
        budget_s: float | None = None,
    ) -> list[Prediction | None]:
        """What each candidate would make of the next `horizon_s` seconds, in their order.

        Args:
            situation: where it starts.
            candidates: the first is in force.
            kept: the first so many are tried on every future, the others as long as they lead.
            budget_s: wall-clock limit for all together; None waits for every one. What was not
                tried in time has fewer futures, or is None; `faults` then says why.
        """
        began_s = time.monotonic()
        self.faults, self.answer = [], None
        self.start()
        predictions: list[Prediction | None] = [None for _ in candidates]
        try:
            if self._forecaster.wait_ready(budget_s):
                left_s = None if budget_s is None else budget_s - (time.monotonic() - began_s)
                question = Question(
                    situation, tuple(candidates), kept, self._config.draws,
                    self.horizon_s(situation), left_s,
                )  # fmt: skip
                self.answer = said = self._forecaster.ask(question)
                self.faults += said.faults
                predictions = [
                    Prediction(seen, said.offered) if seen else None for seen in said.forecasts
                ]
            else:
                self.faults.append("twin_timeout: still starting")
        except WorkerLostError as error:
            self.faults.append(str(error))
            self.start()  # warm again by the next window
        self.wall_s = time.monotonic() - began_s
        return predictions

    def observe(self, past: Past) -> None:
        """A prediction met reality."""
        self.calibration.past.append(past)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._forecaster.close()
