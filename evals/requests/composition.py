"""How are two streams of requests made one? Superposition and thinning, by seed.

Used by `evals.requests.scenario` (two traces whose shares drift) and `evals.requests.offer` (a
tenant that floods, more load without stretching time). All streams are in order of arrival.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from evals.requests.scaling import Requests, scale_to_rate, span_s, thin
from evals.suite.shapes import Shift
from serving.contracts import TraceRequest


def superpose(*streams: Sequence[TraceRequest]) -> Requests:
    """All requests of all streams in order of arrival; ties in the order of the streams."""
    return tuple(sorted(chain.from_iterable(streams), key=lambda request: request.arrival_s))


def mix_streams(
    first: Sequence[TraceRequest], second: Sequence[TraceRequest], shift: Shift, seed: int
) -> Requests:
    """From `first` where the level of `shift` is 0, from `second` where it is 1, between in part.

    Both are brought to one request per second first, so the rate stays the same. Shares of the
    shift are of the shorter stream. A request is kept with the probability of its stream's part.
    """
    count = min(len(first), len(second))
    rng = random.Random(f"{seed}:mix")
    kept: list[list[TraceRequest]] = []
    for rising, stream in enumerate((first, second)):
        steady = scale_to_rate(stream[:count], 1.0)
        levels = shift.level(np.array([request.arrival_s / count for request in steady]))
        parts = levels if rising else 1 - levels
        kept.append(
            [each for each, part in zip(steady, parts, strict=True) if rng.random() < part]
        )
    return superpose(*kept)


def thinned_to_rate(requests: Sequence[TraceRequest], rate_rps: float, seed: int) -> Requests:
    """About `rate_rps` on the trace's own clock: thinned, or copies superposed and thinned.

    A copy is the whole trace begun elsewhere (its end comes round to its start), so lengths and
    tenants go with their neighbours. The stream that comes back starts at 0 s.
    """
    span = span_s(requests)
    requests = scale_to_rate(requests, len(requests) / span)  # from 0 s on, at its own rate
    times = rate_rps * span / len(requests)
    copies = max(1, int(np.ceil(times)))
    rng = random.Random(f"{seed}:copies")
    streams: list[Sequence[TraceRequest]] = [requests]
    for _ in range(copies - 1):
        by_s = rng.random() * span
        streams.append(
            [replace(each, arrival_s=(each.arrival_s + by_s) % span) for each in requests]
        )
    kept = thin(superpose(*streams), times / copies, seed)
    return tuple(replace(each, arrival_s=each.arrival_s - kept[0].arrival_s) for each in kept)


def flooded(
    requests: Sequence[TraceRequest],
    tenant: str,
    factor: float,
    window_s: tuple[float, float],
    seed: int,
) -> Requests:
    """The stream with `factor` times as many requests of `tenant` in the window (seconds).

    The others stay as they were. The additional ones are drawn with replacement from what the
    tenant sends in the window, at uniform times in it.
    """
    start_s, end_s = window_s
    own = [r for r in requests if r.tenant == tenant and start_s <= r.arrival_s < end_s]
    rng = random.Random(f"{seed}:flood")
    more = [
        replace(rng.choice(own), arrival_s=rng.uniform(start_s, end_s))
        for _ in range(round((factor - 1) * len(own)))
    ]
    return superpose(requests, sorted(more, key=lambda request: request.arrival_s))
