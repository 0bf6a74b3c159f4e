"""What serves where the Azure 2023 traces are not at hand? Their synthetic stand-in.

The stand-in is fitted to the published statistics of each trace (number of requests,
span, and mean, median, 90th percentile and maximum of prompt and output lengths)
and to nothing else: arrivals are Poisson over the same span, prompt and output
lengths are independent. It is not the trace; results made with it say so.
"""

import math
import random
from dataclasses import dataclass

from serving.contracts import TraceRequest


@dataclass(frozen=True, slots=True)
class LengthStatistics:
    """Published statistics of a length in tokens."""

    mean: float
    p50: float
    p90: float
    most: int


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Published statistics of a trace."""

    requests: int
    span_s: float
    prompt: LengthStatistics
    output: LengthStatistics


AZURE_2023 = {
    "azure-conv": TraceStatistics(
        requests=19_366,
        span_s=3_502,
        prompt=LengthStatistics(mean=1155, p50=1020, p90=2734, most=14_050),
        output=LengthStatistics(mean=211, p50=129, p90=424, most=1000),
    ),
    "azure-code": TraceStatistics(
        requests=8_819,
        span_s=3_436,
        prompt=LengthStatistics(mean=2048, p50=1469, p90=5186, most=7437),
        output=LengthStatistics(mean=28, p50=13, p90=55, most=1899),
    ),
}


def synthetic_stand_in(name: str, seed: int) -> tuple[TraceRequest, ...]:
    """The stand-in of a trace in `AZURE_2023`: as many requests over as many seconds."""
    published = AZURE_2023[name]
    rng = random.Random(f"{seed}:{name}")
    prompts = _lengths(published.prompt, published.requests, rng)
    outputs = _lengths(published.output, published.requests, rng)
    gaps = [rng.expovariate(1.0) for _ in range(published.requests - 1)]
    to_seconds = published.span_s / sum(gaps)
    now_s = 0.0
    requests = [TraceRequest(0.0, prompts[0], outputs[0])]
    for gap, prompt, output in zip(gaps, prompts[1:], outputs[1:], strict=True):
        now_s += gap * to_seconds
        requests.append(TraceRequest(now_s, prompt, output))
    return tuple(requests)


def quantile(stats: LengthStatistics, q: float, shape: float) -> float:
    """Length at quantile q: through p50 at 0.5, p90 at 0.9 and the maximum at 1.

    Below the median p50*(2q)^shape; between two of those points, at the fraction u of
    the way, low*(high/low)^(u^shape). The mean falls as `shape` grows.
    """
    if q < 0.5:
        return float(stats.p50 * (2 * q) ** shape)
    if q < 0.9:
        return float(stats.p50 * (stats.p90 / stats.p50) ** (((q - 0.5) / 0.4) ** shape))
    return float(stats.p90 * (stats.most / stats.p90) ** (((q - 0.9) / 0.1) ** shape))


def fit_shape(stats: LengthStatistics) -> float:
    """The shape at which the mean length is the published one (bisection)."""
    low, high = 0.05, 20.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        mean = sum(quantile(stats, (i + 0.5) / 2000, middle) for i in range(2000)) / 2000
        low, high = (middle, high) if mean > stats.mean else (low, middle)
    return math.sqrt(low * high)


def _lengths(stats: LengthStatistics, count: int, rng: random.Random) -> list[int]:
    # One draw per equal slice of probability, shuffled: the statistics hold for any seed.
    shape = fit_shape(stats)
    lengths = [max(1, round(quantile(stats, (i + 0.5) / count, shape))) for i in range(count)]
    lengths[-1] = stats.most
    rng.shuffle(lengths)
    return lengths
