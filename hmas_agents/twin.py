"""How would the next window go under another policy?

The twin forks the engine's present state in the simulator and tries each candidate on the
same drawn futures, beside the loop and never in the engine. Called by the long horizon,
which switches only for a predicted gain above what the twin has been wrong by. Without a
wall-clock budget (simulated runs) it is deterministic.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence

from hmas_agents.config import TwinConfig
from hmas_agents.prediction import (
    ERRORS_KEPT,
    Prediction,
    bias,
    gain,
    gain_margin,
    rms,
    terms,
)
from hmas_agents.records import Proposal
from hmas_agents.situation import Situation
from hmas_agents.twin_process import Forecaster, TwinProcess, WorkerLostError, left_s
from hmas_agents.twin_worker import Ask
from serving.contracts import Limits

FINALISTS = 2  # most candidates beside the incumbent that are tried on more than one future
WORTH_MORE = 0.5  # of the least gain: who leads by less is tried no further
UNRIVALLED = 2  # futures of an incumbent that nobody leads: its own interval needs a spread
SHORTEST_S = 10.0  # a shorter look ahead would miss what a policy does to a queue


class Twin:
    """Predicts attainment under each candidate policy, and keeps score of its own error.

    Args:
        past: (predicted, realised) of earlier decisions, oldest first, from the ledger.
        forecaster: where it computes; None means in a process of its own.

    Attributes:
        faults: what went wrong in the last `predict`, as `code: detail`.
        wall_s: how long the last `predict` took.
    """

    def __init__(
        self,
        config: TwinConfig,
        past: Iterable[tuple[float, float]] = (),
        forecaster: Forecaster | None = None,
    ) -> None:
        self._config = config
        self._forecaster = forecaster or TwinProcess()
        self._errors = deque((p - r for p, r in past), maxlen=ERRORS_KEPT)
        self.faults: list[str] = []
        self.wall_s = 0.0

    @property
    def error(self) -> float:
        """Root mean square of predicted - realised over the last 20 decisions."""
        return rms(self._errors)

    def weigh(self, candidate: Prediction, incumbent: Prediction) -> tuple[float, float]:
        """The candidate's gain over the incumbent, and what it must exceed for a switch."""
        margin = gain_margin(candidate, incumbent, bias(self._errors), self._config.margin)
        return gain(candidate, incumbent), margin

    def terms(self, candidate: Prediction, incumbent: Prediction) -> dict[str, float]:
        """What these two figures were made of."""
        return terms(candidate, incumbent, bias(self._errors), self._config.margin)

    def horizon_s(self, situation: Situation) -> float:
        """How far ahead it looks: less where `twin.max_requests` would come before that."""
        rate_rps = len(situation.requests) / max(situation.span_s, 1.0)
        longest_s = self._config.max_requests / max(rate_rps, 1e-9)
        return min(self._config.horizon_s, max(SHORTEST_S, longest_s))

    def start(self) -> None:
        """Get ready, which takes about 10 s; does not wait for it."""
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
        candidates: Sequence[Proposal],
        *,
        budget_s: float | None = None,
        limits: Limits | None = None,
    ) -> list[Prediction | None]:
        """What each candidate would make of the next `horizon_s` seconds, in their order.

        The first candidate is the incumbent. All are tried on one future. Up to two others,
        for as long as they lead by half of the least gain, go on with the incumbent to
        `twin.draws` of them; without any the incumbent has two. Where it leaves no more than
        the least gain to be had, the others are not tried, unless a person asked. `budget_s` is a
        wall-clock limit for all together, None waits for every one: what was not tried in
        time has fewer futures, or is None; `faults` then says why. `limits` are those that
        would come with a switch, None leaves what is in force.
        """
        began_s = time.monotonic()
        deadline_s = None if budget_s is None else began_s + budget_s
        self.faults = []
        self.start()
        seen: list[list[float]] = [[] for _ in candidates]
        try:
            if self._forecaster.wait_ready(left_s(deadline_s)):
                self._forecaster.send(situation)
                self._try_all(candidates, seen, self.horizon_s(situation), deadline_s, limits)
            else:
                self.faults.append("twin_timeout: still starting")
        except WorkerLostError as error:
            self.faults.append(str(error))
            self.start()  # warm again by the next window
        self.wall_s = time.monotonic() - began_s
        return [Prediction(tuple(values)) if values else None for values in seen]

    def observe(self, predicted: float, realised: float) -> None:
        """A prediction met reality."""
        self._errors.append(predicted - realised)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._forecaster.close()

    def _try_all(
        self,
        candidates: Sequence[Proposal],
        seen: list[list[float]],
        horizon_s: float,
        deadline_s: float | None,
        limits: Limits | None,
    ) -> None:
        """Fill in each candidate's attainments; one that fails is left out from there on."""
        alive = list(range(len(candidates)))
        by_hand = any(candidate.source == "person" for candidate in candidates)
        for seed in range(self._config.draws):
            for i in alive:
                policy, params = candidates[i].policy, candidates[i].params
                ask = Ask(policy, params, seed, horizon_s, limits if i else None)
                answer = self._forecaster.ask(ask, deadline_s)
                if isinstance(answer, str):
                    if (fault := f"twin_failed: {answer}") not in self.faults:
                        self.faults.append(fault)
                    continue
                seen[i].append(answer)
                if i == seed == 0 and answer >= 1.0 - self._config.margin and not by_hand:
                    return
            if len(seen[0]) <= seed:
                return  # nothing to compare with
            lead = {i: sum(seen[i]) - sum(seen[0]) for i in alive[1:] if len(seen[i]) > seed}
            least = WORTH_MORE * self._config.margin * (seed + 1)
            worth = sorted((i for i in lead if lead[i] >= least), key=lambda i: -lead[i])
            alive = [0, *worth[:FINALISTS]]
            if not worth and seed + 1 >= UNRIVALLED:
                return
