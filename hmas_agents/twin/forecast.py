"""How would the next minute go under a candidate? Served in the compiled engine, once per future.

It starts from the engine's present state and serves arrivals that were drawn from the recent
window. Deterministic; run by the twin's process, by `hmas replay` and by the labelling of cases.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hmas_agents.situation import Situation
from hmas_agents.twin.futures import Futures
from hmas_agents.twin.question import Candidate
from serving.contracts import Decision, ResidentRequest, TraceRequest
from serving.engines.branches import Branches, Forecast, Trial
from serving.engines.profile import profile_from_snapshot


class Forecasts:
    """Forecasts from one situation.

    Args:
        situation: one engine at one moment.
        horizon_s: what arrives within it counts, and what is inside and has missed nothing yet.
    """

    def __init__(self, situation: Situation, horizon_s: float) -> None:
        self._situation = situation
        self.look_ahead(horizon_s)
        self._branches = branches_of(situation, situation.requests)

    def look_ahead(self, horizon_s: float) -> None:
        """Draw futures that look so far."""
        self._futures = Futures(self._situation, horizon_s)
        self._trials: dict[int, Trial] = {}

    @property
    def work_s(self) -> float:
        """What trials have taken so far, as `Branches` counts it."""
        return self._branches.work_s

    def forecast(self, candidate: Candidate, seed: int) -> Forecast:
        """What comes of it in this future.

        Raises:
            ValueError: the policy or its parameters do not exist.
        """
        limits = replace(self._situation.limits, **candidate.limits)
        return self._branches.forecast(
            self._trial(seed), candidate.policy, candidate.params, limits, self._futures.until_s
        )

    def by_group(
        self, candidate: Candidate, seed: int, weights: NDArray[np.float64]
    ) -> list[float]:
        """Worth (see `Forecast`) of groups of what counts; NaN for a group that nothing is of.

        Args:
            candidate: what is in force.
            seed: of the future.
            weights: what a request counts for in each group, whatever the contract says, those
                inside first and then those that may come, shape (groups, inside + requests).

        Raises:
            ValueError: the policy or its parameters do not exist.
        """
        trial, limits = self._trial(seed), replace(self._situation.limits, **candidate.limits)
        groups = weights[:, trial.rows] * (trial.weights > 0.0)
        found = self._branches.forecast_groups(
            trial, candidate.policy, candidate.params, limits, self._futures.until_s, groups
        )
        return [
            said.worth if group.any() else np.nan
            for said, group in zip(found, groups, strict=True)
        ]

    @property
    def offered(self) -> float:
        """How many requests count in a future, on average over those that were looked at.

        Where weights differ, as many of equal weight as would say as much (the effective sample
        size, Kish 1965): (sum w)^2 / sum w^2.
        """
        weights = [trial.weights for trial in self._trials.values()]
        counts = [one.sum() ** 2 / ((one * one).sum() or 1.0) for one in weights]
        return float(np.mean(counts)) if counts else 0.0

    def _trial(self, seed: int) -> Trial:
        if seed not in self._trials:
            self._trials[seed] = self._branches.trial(self._futures.draw(seed))
        return self._trials[seed]


def branches_of(situation: Situation, offered: Sequence[TraceRequest]) -> Branches:
    """The engine of a situation, to be tried with what of `offered` comes."""
    snapshot = situation.snapshot
    inside = [_from_zero(one, snapshot.now_s) for one in situation.inside.requests]
    in_force = Decision(
        "twin", snapshot.epoch + 1, 0.0, snapshot.policy, snapshot.params, snapshot.limits
    )
    return Branches(
        profile_from_snapshot(snapshot), situation.settings, in_force, inside, offered,
        ((s.tenant, s.prompt_tokens, s.max_tokens, s.output_tokens) for s in situation.served),
        situation.inside.prefill_s_per_token,
    )  # fmt: skip


def _from_zero(request: ResidentRequest, now_s: float) -> ResidentRequest:
    """On a clock whose second 0 is the present."""
    return replace(
        request,
        arrival_s=request.arrival_s - now_s,
        admitted_s=None if request.admitted_s is None else request.admitted_s - now_s,
        first_token_s=None if request.first_token_s is None else request.first_token_s - now_s,
    )
