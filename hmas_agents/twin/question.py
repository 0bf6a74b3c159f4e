"""What is asked of the twin, and what does it answer? Goes through a pipe."""

from dataclasses import dataclass, field
from typing import Any

from hmas_agents.situation import Situation
from serving.engines.branches import Forecast

SHORTEST_S = 10.0  # a shorter look ahead would miss what a policy does to a queue


@dataclass(frozen=True, slots=True)
class Candidate:
    """What could be in force.

    Attributes:
        policy, params: the order of the queue.
        limits: fields of `serving.contracts.Limits` that come with it; the others stay.
    """

    policy: str
    params: dict[str, float] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """Which of these would be better?

    Attributes:
        situation: where it starts.
        candidates: the first is in force; the last are the first to be left out.
        kept: so many of the first are tried on every future.
        futures: how many there are; fewer are tried where forecasts are dear.
        horizon_s: how far each looks; less where forecasts are dear.
        limit_s: wall-clock limit; None lets it finish.
    """

    situation: Situation
    candidates: tuple[Candidate, ...]
    kept: int
    futures: int
    horizon_s: float
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it.

    Attributes:
        forecasts: of each candidate, in each future that it was tried on, in order.
        offered: requests that count, on average over the futures.
        horizon_s: how far each future looked.
        work_s: what that took, as `serving.engines.branches` counts it.
        faults: what went wrong, as `code: detail`.
    """

    forecasts: tuple[tuple[Forecast, ...], ...]
    offered: float = 0.0
    horizon_s: float = 0.0
    work_s: float = 0.0
    faults: tuple[str, ...] = ()
