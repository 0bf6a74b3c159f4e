"""How would the next minute go if this were changed? Now and then, on the same futures.

Asked by the graph `intent`, before a person approves; in the process of the command that asks.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmas_agents.situation import Situation
from hmas_agents.twin.forecast import Forecasts
from hmas_agents.twin.question import Candidate
from serving.engines.branches import warm_up


@dataclass(frozen=True, slots=True)
class Group:
    """Whose requests are looked at; without either, everybody's.

    `others` are whom none of the groups before it names. `weighted`: each counts for what it weighs
    in the contract that is to come.
    """

    name: str
    tenant: str | None = None
    slo_class: str | None = None
    others: bool = False
    weighted: bool = False


@dataclass(frozen=True, slots=True)
class GroupShare:
    """Attainment of a group, mean over the futures; None where it has no request.

    Attributes:
        chance: standard error of the difference.
    """

    name: str
    now: float | None
    then: float | None
    chance: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What the twin says of a change."""

    futures: int
    horizon_s: float
    shares: tuple[GroupShare, ...]


def preview(
    now: Situation, then: Situation, limits: dict[str, float], groups: Sequence[Group],
    *, futures: int, horizon_s: float, limit_s: float,
) -> Preview:  # fmt: skip
    """Serve both situations on the same futures, as many as there is time for, at least one.

    Args:
        now: the moment as it is.
        then: the same, with what is to change.
        limits: of the engine, that come with it.
        groups: whose attainment is told.
        futures: at most so many.
        horizon_s: how far each looks.
        limit_s: wall-clock time after which no further future begins.
    """
    warm_up()
    began_s, snapshot = time.monotonic(), now.snapshot
    in_force = Candidate(snapshot.policy, dict(snapshot.params))
    weights = _weights(then, groups)  # both have the same requests
    sides = [
        (Forecasts(now, horizon_s), in_force),
        (Forecasts(then, horizon_s), replace(in_force, limits=limits)),
    ]
    seen: list[list[list[float]]] = []  # future, side, group
    while len(seen) < futures and (not seen or time.monotonic() - began_s < limit_s):
        seen.append([each.by_group(setting, len(seen), weights) for each, setting in sides])
    shares = []
    for i, group in enumerate(groups):
        pairs = [(one[0][i], one[1][i]) for one in seen]
        both = [then - now for now, then in pairs if not math.isnan(then - now)]
        chance = statistics.stdev(both) / math.sqrt(len(both)) if len(both) > 1 else 0.0
        before, after = (_mean([pair[side] for pair in pairs]) for side in (0, 1))
        shares.append(GroupShare(group.name, before, after, chance))
    return Preview(len(seen), horizon_s, tuple(shares))


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else None


def _weights(situation: Situation, groups: Sequence[Group]) -> np.ndarray:
    senders = [
        *((each.tenant, each.slo_class) for each in situation.inside.requests),
        *((each.tenant, each.slo_class) for each in situation.requests),
    ]
    weight_of = situation.settings.contract.weight_of
    weights = np.array([weight_of(*sender) for sender in senders])
    named = np.zeros(len(senders), bool)
    rows = []
    for group in groups:
        own = np.array(
            [group.tenant in {None, tenant} and group.slo_class in {None, slo_class}
             for tenant, slo_class in senders],
            bool,
        ).reshape(len(senders))  # fmt: skip
        if group.others:
            own = ~named
        elif group.tenant is not None or group.slo_class is not None:
            named |= own
        rows.append(own * weights if group.weighted else own)
    return np.array(rows, np.float64)
