"""What may come next? Draws arrivals and answer lengths from what was seen lately.

A pure function of a situation and a seed: every candidate is tried on the same futures.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmas_agents.lateness import first_token_is_late
from hmas_agents.situation import Served, Situation
from serving.contracts import ResidentRequest, TraceRequest
from serving.engines.branches import Drawn

BLOCK_S = 5.0
HALF_LIFE_S = 20.0
HALF_LIFE_AFTER_CHANGE_S = 2.5  # while an alarm holds, what was before it says little
ENOUGH_REQUESTS = 30  # but fewer than these say nothing of rate and mix
ENOUGH_ANSWERS = 8
DEFAULT_OUTPUT_TOKENS = 128
# Of the logarithm of the next minute's rate over that of the last two. Chosen between 0 and 0.3 on
# one seed of the drift suite: with 0 the twin believes in settings that the next change breaks.
RATE_SPREAD = 0.3
TAIL = 0.25  # of the horizon: traffic goes on behind it, so that the last ones meet a fair queue
_LONGER = 1.5  # of an answer that is longer than any seen: so much in all


class Futures:
    """Futures of one situation, the present being second 0.

    Args:
        situation: with the requests inside, and those that came lately.
        horizon_s: what arrives within it counts.

    Attributes:
        until_s: the end of each future.
    """

    def __init__(self, situation: Situation, horizon_s: float) -> None:
        self._situation, self._horizon_s = situation, horizon_s
        self.until_s = (1.0 + TAIL) * horizon_s
        inside, own = situation.inside.requests, set(situation.own_tenants)
        weight_of = situation.settings.contract.weight_of
        self._counts_inside = weights_inside(situation)
        self._counts = np.array(
            [(r.tenant not in own) * weight_of(r.tenant, r.slo_class) for r in situation.requests]
        )
        self._block_s = min(BLOCK_S, max(situation.span_s, 1e-3))
        self._blocks = _blocks(situation, self._block_s)
        weights = 0.5 ** (
            np.arange(len(self._blocks)) * self._block_s / _half_life_s(situation)
        )
        self._weights = weights / weights.sum()
        self._factors = [_factors(situation, r) for r in situation.requests]
        lengths = Lengths(situation.served)
        self._answers = lengths.tails([(r.tenant, r.prompt_tokens, 0) for r in situation.requests])
        self._rests = lengths.tails([(r.tenant, r.prompt_tokens, r.output_tokens) for r in inside])
        self._given = np.array([r.output_tokens for r in inside], np.int64)
        self._most = np.array([r.max_tokens for r in inside], np.int64)

    def draw(self, seed: int) -> Drawn:
        """One future; the same seed gives the same.

        A block bootstrap (Kuensch, Annals of Statistics 1989): stretches of 5 s of the recent
        window, whole, so that bursts, sessions and the mix of the moment stay together, newer ones
        more often: weights halve every 20 s of age; while a drift alarm holds every 2.5 s, or every
        span that brought the last 30 requests if that is longer. Answer lengths are drawn anew,
        since of recent requests only the short ones are known. A request comes with the prompt
        blocks that it shares with others, and with what the cache held of it. Requests are
        repeated, or left out, as the rate of this future differs from the recent one: by chance,
        and where a change was announced.
        """
        rng = np.random.default_rng([seed, 1])
        which, arrival_s = self._arrivals(rng, np.random.default_rng([seed, 3]), _rate(seed))
        answers = self._answers.draw(rng, which)
        whole = self._rests.draw(np.random.default_rng([seed, 2]), np.arange(len(self._given)))
        least = self._given + 1
        whole = np.minimum(np.maximum(whole, least), np.maximum(self._most, least))
        counts = self._counts[which] * (arrival_s < self._horizon_s)
        weights = np.concatenate([self._counts_inside, counts])
        return Drawn(which, arrival_s, answers.astype(np.int32), whole.astype(np.int32), weights)

    def _arrivals(
        self, rng: np.random.Generator, again: np.random.Generator, rate: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if not self._blocks:
            return np.zeros(0, np.int64), np.zeros(0)
        starts_s = np.arange(0.0, self.until_s, self._block_s)
        blocks = rng.choice(len(self._blocks), len(starts_s), p=self._weights)
        which = np.concatenate([self._blocks[block][0] for block in blocks])
        sizes = [len(self._blocks[block][0]) for block in blocks]
        begins_s = np.repeat(starts_s, sizes)
        arrival_s = begins_s + np.concatenate([self._blocks[block][1] for block in blocks])
        factor = np.full(len(which), rate)
        if self._situation.expected:
            pairs = zip(which, arrival_s, strict=True)
            factor *= np.array([self._factor(row, at_s) for row, at_s in pairs])
        copies = np.floor(factor + again.random(len(factor))).astype(np.int64)
        first = (np.cumsum(copies) - copies)[copies > 0]
        which, begins_s = np.repeat(which, copies), np.repeat(begins_s, copies)
        anywhere_s = begins_s + self._block_s * again.random(len(which))
        anywhere_s[first] = arrival_s[copies > 0]  # copies of it come at other times
        arrival_s = anywhere_s
        order = np.argsort(arrival_s, kind="stable")
        order = order[arrival_s[order] < self.until_s]
        return which[order], arrival_s[order]

    def _factor(self, row: int, at_s: float) -> float:
        return math.prod(
            factor for from_s, until_s, factor in self._factors[row] if from_s <= at_s < until_s
        )


def _rate(seed: int) -> float:
    """How many times the recent rate: log-normal of mean 1, evenly over any 2^n futures in a row.

    By the radical inverse in base 2 (van der Corput 1935), so that few futures have quiet and busy
    ones among them.
    """
    digits = f"{seed + 1:b}"
    share = sum(0.5 ** (i + 1) for i, digit in enumerate(reversed(digits)) if digit == "1")
    deviation = statistics.NormalDist().inv_cdf(share)
    return math.exp(RATE_SPREAD * deviation - RATE_SPREAD**2 / 2)


def weights_inside(situation: Situation) -> NDArray[np.float64]:
    """What each request inside counts for: 0 if it is the controller's own, or late already."""
    now_s, own = situation.snapshot.now_s, set(situation.own_tenants)
    weight_of = situation.settings.contract.weight_of

    def is_open(one: ResidentRequest) -> bool:
        late = first_token_is_late(one.slo, one.arrival_s, one.first_token_s, now_s)
        return not late and one.tenant not in own

    inside = situation.inside.requests
    return np.array([is_open(one) * weight_of(one.tenant, one.slo_class) for one in inside])


def _factors(situation: Situation, one: TraceRequest) -> list[tuple[float, float, float]]:
    """From when to when, by second 0, and by how much this request's traffic changes."""
    now_s = situation.snapshot.now_s
    return [
        (each.from_s - now_s, math.inf if each.until_s is None else each.until_s - now_s,
         each.factor)
        for each in situation.expected
        if each.tenant in {None, one.tenant} and each.slo_class in {None, one.slo_class}
    ]  # fmt: skip


def _half_life_s(situation: Situation) -> float:
    if not situation.state.alarms or not situation.requests:
        return HALF_LIFE_S
    oldest = situation.requests[-ENOUGH_REQUESTS:][0]
    return min(max(situation.span_s - oldest.arrival_s, HALF_LIFE_AFTER_CHANGE_S), HALF_LIFE_S)


class Tails:
    """For each of some requests, the answer lengths that it may have."""

    def __init__(
        self, lengths: NDArray[np.int64], spans: Sequence[tuple[int, int]], given: Sequence[int]
    ) -> None:
        self._lengths = lengths
        self._first, self._count = np.array(spans, np.int64).reshape(-1, 2).T
        tokens = np.array(given, np.int64)
        longer = np.maximum((tokens * _LONGER).astype(np.int64), tokens + 1)
        self._unseen = np.where(tokens > 0, longer, DEFAULT_OUTPUT_TOKENS)

    def draw(self, rng: np.random.Generator, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """A length for each of these requests."""
        pick = rng.random(len(which))  # always one number, so that futures differ in nothing else
        count = self._count[which]
        at = self._first[which] + (pick * count).astype(np.int64)
        return np.where(count > 0, self._lengths[np.where(count > 0, at, 0)], self._unseen[which])


class Lengths:
    """Answer lengths that were seen, by tenant and prompt length (powers of four).

    A request draws from the narrowest group with at least `ENOUGH_ANSWERS` longer than what it
    has already: the empirical residual life E[L | L > g] needs no form of distribution.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        groups: dict[tuple[str, int] | str | None, list[int]] = defaultdict(list)
        for answer in served:
            for key in self._keys(answer.tenant, answer.prompt_tokens):
                groups[key].append(answer.output_tokens)
        self._groups, self._starts, start = {}, {}, 0
        for key, values in groups.items():
            self._groups[key], self._starts[key] = np.sort(np.array(values, np.int64)), start
            start += len(values)
        self._flat = np.concatenate([*self._groups.values(), np.zeros(1, np.int64)])

    def tails(self, asked: Sequence[tuple[str, int, int]]) -> Tails:
        """For requests as (tenant, prompt_tokens, tokens of the answer so far)."""
        found: dict[tuple[str, int, int], tuple[int, int]] = {}
        for tenant, prompt_tokens, given in asked:
            group = tenant, _power(prompt_tokens), given
            if group not in found:
                found[group] = self._span(tenant, prompt_tokens, given)
        spans = [found[tenant, _power(prompt), given] for tenant, prompt, given in asked]
        return Tails(self._flat, spans, [given for _, _, given in asked])

    def _span(self, tenant: str, prompt_tokens: int, longer_than: int) -> tuple[int, int]:
        for key in self._keys(tenant, prompt_tokens):
            seen = self._groups.get(key)
            if seen is None:
                continue
            first = int(np.searchsorted(seen, longer_than, side="right"))
            count = len(seen) - first
            if count >= ENOUGH_ANSWERS or (key is None and count):
                return self._starts[key] + first, count
        return 0, 0

    @staticmethod
    def _keys(tenant: str, prompt_tokens: int) -> tuple[tuple[str, int] | str | None, ...]:
        return (tenant, _power(prompt_tokens)), tenant, None


def _power(prompt_tokens: int) -> int:
    return max(1, prompt_tokens).bit_length() // 2


def _blocks(
    situation: Situation, block_s: float
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Whole blocks of the window, the newest first: requests and their seconds inside."""
    span_s = situation.span_s
    if not situation.requests or span_s <= 0:
        return []
    count = max(1, int(span_s / block_s))
    age_s = span_s - np.array([request.arrival_s for request in situation.requests])
    index = np.maximum(1, np.ceil(age_s / block_s)).astype(np.int64) - 1
    offset_s = (index + 1) * block_s - age_s
    rows = np.arange(len(age_s))
    return [(rows[index == i], offset_s[index == i]) for i in range(count)]
