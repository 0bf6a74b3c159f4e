"""How would the next minute go under a policy? One replay of one drawn future.

The simulator starts from the engine's present state and serves arrivals that were drawn
from the recent window. Pure and deterministic; run by the twin's process, by `hmas replay`
and by the labelling of cases. vLLM is imported when the first forecast is made (10 s).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hmas_agents.futures import draw_arrivals, draw_rest
from hmas_agents.lateness import first_token_is_late
from hmas_agents.situation import Situation
from serving.contracts import Decision, Outcome, ResidentRequest
from serving.engines.profile import profile_from_snapshot

TAIL_S = 15.0  # traffic goes on behind the horizon, so that the last ones meet a fair queue
FOREVER_S = 24 * 3600.0  # the longest lease an engine grants


@dataclass(frozen=True, slots=True)
class Forecast:
    """What came of one future.

    Attributes:
        met / offered: of the requests inside at the start that had missed nothing yet and
            those that arrive within the horizon, how many met all their SLOs, and how many
            there were.
    """

    met: int
    offered: int

    @property
    def attainment(self) -> float:
        """Share of them that met; 1 when nothing was offered."""
        return self.met / self.offered if self.offered else 1.0


class ForecastError(RuntimeError):
    """The simulated engine refused the candidate; says why."""


def forecast(
    situation: Situation,
    policy: str,
    params: dict[str, float],
    *,
    seed: int,
    horizon_s: float,
) -> Forecast:
    """One future under one candidate; the same seed is the same future for every candidate.

    A request that is still being answered at the end counts as met while it is on time.

    Raises:
        ForecastError: the policy or its parameters do not exist.
    """
    from serving.engines.compiled import CompiledEngine
    from serving.engines.resumed import Begun

    now_s = situation.snapshot.now_s
    engine = CompiledEngine(profile_from_snapshot(situation.snapshot), situation.settings)
    engine.learn_lengths(
        (s.tenant, s.prompt_tokens, s.max_tokens, s.output_tokens) for s in situation.served
    )
    ack = engine.apply(
        Decision("twin", engine.snapshot().epoch + 1, FOREVER_S, policy, params,
                 situation.limits)
    )  # fmt: skip
    if not ack.accepted:
        raise ForecastError(f"the simulated engine refused {policy}: {ack.reason}")
    inside = [_from_zero(request, now_s) for request in situation.inside.requests]
    engine.resume(
        [
            Begun(request, output_tokens)
            for request, output_tokens in zip(inside, draw_rest(situation, seed), strict=True)
        ],
        situation.inside.prefill_s_per_token,
    )
    arrivals = draw_arrivals(situation, seed, horizon_s + TAIL_S)
    counted = sum(request.arrival_s < horizon_s for request in arrivals)
    outcomes = engine.run(
        arrivals,
        until_s=horizon_s + TAIL_S,
        until_left=[f"b{i}" for i in range(len(inside))] + [f"r{i}" for i in range(counted)],
    )
    undecided = [
        outcome
        for request, outcome in zip(inside, engine.resumed_outcomes, strict=True)
        if not first_token_is_late(request.slo, request.arrival_s, request.first_token_s, 0.0)
    ]
    own = situation.own_tenants
    return _count(o for o in (*undecided, *outcomes[:counted]) if o.tenant not in own)


def _count(outcomes: Iterable[Outcome]) -> Forecast:
    counted = list(outcomes)
    return Forecast(sum(o.met or _is_on_time(o) for o in counted), len(counted))


def _is_on_time(outcome: Outcome) -> bool:
    """Cut off by the end of the forecast, with every target met so far."""
    begun = outcome.finish == "unfinished" and outcome.ttft_s is not None
    return begun and outcome.miss == "not_served"


def _from_zero(request: ResidentRequest, now_s: float) -> ResidentRequest:
    """On a clock whose second 0 is the present."""
    return replace(
        request,
        arrival_s=request.arrival_s - now_s,
        admitted_s=None if request.admitted_s is None else request.admitted_s - now_s,
        first_token_s=None if request.first_token_s is None else request.first_token_s - now_s,
    )
