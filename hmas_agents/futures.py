"""What may come next? Draws arrivals and answer lengths from what was seen lately.

Pure functions of a situation and a seed, used by `hmas_agents.forecast`: every candidate
is tried on the same futures.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hmas_agents.situation import Served, Situation
from serving.contracts import TraceRequest

BLOCK_S = 5.0
HALF_LIFE_S = 20.0
HALF_LIFE_AFTER_CHANGE_S = 2.5  # while an alarm holds, what was before it says little
ENOUGH_REQUESTS = 30  # but fewer than these say nothing of rate and mix
DEFAULT_OUTPUT_TOKENS = 128
_LONGER = 1.5  # of an answer that is longer than any seen: so much in all


def draw_arrivals(situation: Situation, seed: int, until_s: float) -> list[TraceRequest]:
    """Arrivals of the next `until_s` seconds, the present being second 0.

    A block bootstrap (Kuensch, Annals of Statistics 1989): stretches of 5 s of the recent
    window, whole, so that bursts and the mix of the moment stay together, newer ones more
    often: weights halve every 20 s of age; while a drift alarm holds every 2.5 s, or every
    span that brought the last 30 requests if that is longer. Answer lengths are drawn
    anew, since of recent requests only the short ones are known.
    """
    rng = np.random.default_rng([seed, 1])
    blocks = _blocks(situation)
    if not blocks:
        return []
    block_s = min(BLOCK_S, max(situation.span_s, 1e-3))
    weights = 0.5 ** (np.arange(len(blocks)) * block_s / _half_life_s(situation))
    lengths = Lengths(situation.served)
    drawn: list[TraceRequest] = []
    begin_s = 0.0
    while begin_s < until_s:
        block = blocks[int(rng.choice(len(blocks), p=weights / weights.sum()))]
        for offset_s, request in block:
            if begin_s + offset_s < until_s:
                output = lengths.draw(rng, request.tenant, request.prompt_tokens)
                drawn.append(
                    replace(request, arrival_s=begin_s + offset_s, output_tokens=output)
                )
        begin_s += block_s
    return drawn


def _half_life_s(situation: Situation) -> float:
    if not situation.state.alarms:
        return HALF_LIFE_S
    oldest = situation.requests[-ENOUGH_REQUESTS:][0]
    return min(max(situation.span_s - oldest.arrival_s, HALF_LIFE_AFTER_CHANGE_S), HALF_LIFE_S)


def draw_rest(situation: Situation, seed: int) -> list[int]:
    """For each request inside, the length that its whole answer will have had."""
    rng = np.random.default_rng([seed, 2])
    lengths = Lengths(situation.served)
    return [
        min(
            max(lengths.draw(rng, r.tenant, r.prompt_tokens, r.output_tokens), r.output_tokens + 1),
            max(r.max_tokens, r.output_tokens + 1),
        )
        for r in situation.inside.requests
    ]


class Lengths:
    """Answer lengths that were seen, by tenant and prompt length (powers of four).

    Draws from the narrowest group with at least `ENOUGH` answers longer than asked: the
    empirical residual life E[L | L > g] needs no form of distribution.
    """

    ENOUGH = 8

    def __init__(self, served: Sequence[Served]) -> None:
        groups: dict[tuple[str, int] | str | None, list[int]] = defaultdict(list)
        for answer in served:
            for key in self._keys(answer.tenant, answer.prompt_tokens):
                groups[key].append(answer.output_tokens)
        self._groups = {key: np.sort(np.array(values)) for key, values in groups.items()}

    def draw(
        self, rng: np.random.Generator, tenant: str, prompt_tokens: int, longer_than: int = 0
    ) -> int:
        """The length in tokens of one answer that has `longer_than` tokens already."""
        pick = rng.random()  # always one number, so that futures differ in nothing else
        fallback = int(longer_than * _LONGER) if longer_than else DEFAULT_OUTPUT_TOKENS
        for key in self._keys(tenant, prompt_tokens):
            seen = self._groups.get(key)
            if seen is None:
                continue
            tail = seen[int(np.searchsorted(seen, longer_than, side="right")) :]
            if len(tail) >= self.ENOUGH or (key is None and len(tail)):
                return int(tail[int(pick * len(tail))])
        return max(fallback, longer_than + 1)

    @staticmethod
    def _keys(tenant: str, prompt_tokens: int) -> tuple[tuple[str, int] | str | None, ...]:
        return (tenant, max(1, prompt_tokens).bit_length() // 2), tenant, None


def _blocks(situation: Situation) -> list[list[tuple[float, TraceRequest]]]:
    """Whole blocks of the window, the newest first: requests with their seconds inside."""
    span_s = situation.span_s
    if not situation.requests or span_s <= 0:
        return []
    block_s = min(BLOCK_S, span_s)
    count = max(1, int(span_s / block_s))
    blocks: list[list[tuple[float, TraceRequest]]] = [[] for _ in range(count)]
    for request in situation.requests:
        age_s = span_s - request.arrival_s
        index = max(1, math.ceil(age_s / block_s)) - 1
        if index < count:
            blocks[index].append(((index + 1) * block_s - age_s, request))
    return blocks
