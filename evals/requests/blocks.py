"""Which part of a trace does a seed replay? Disjoint blocks of the development or the test half.

A half is cut into as many whole blocks as it holds, each as long as a case. Seed k takes the block
at k * step modulo their number, with a step near 0.618 of it that has no divisor in common with it
(Weyl's sequence): every block once before any comes again, and few seeds are spread over the half.
"""

import math
from collections.abc import Callable

from evals.requests.trace import WorkloadError
from evals.suite.traffic_spec import Half

GOLDEN = (math.sqrt(5) - 1) / 2


def half_of(from_s: float, until_s: float, half: Half) -> tuple[float, float]:
    """From when to when a half of a trace lasts: it is cut in the middle, by time."""
    middle_s = (from_s + until_s) / 2
    if half == "any":
        return from_s, until_s
    return (from_s, middle_s) if half == "development" else (middle_s, until_s)


def block_start_s(
    name: str, within_s: tuple[float, float], length_s: float, seeds: int, seed: int,
    is_sent: Callable[[float, float], bool] = lambda _from_s, _until_s: True,
) -> float:  # fmt: skip
    """When the block of a seed begins: one of the blocks of a half (`within_s`) in which `is_sent`.

    Raises:
        WorkloadError: there are more seeds (0 to seeds - 1) than blocks; names the trace.
    """
    from_s, until_s = within_s
    all_s = [from_s + length_s * k for k in range(int((until_s - from_s) / length_s + 1e-9))]
    starts_s = [start_s for start_s in all_s if is_sent(start_s, start_s + length_s)]
    if seeds > len(starts_s):
        blocks = "1 block" if len(starts_s) == 1 else f"{len(starts_s)} blocks"
        raise WorkloadError(
            f"{name}: {seeds} seeds are asked for, and this half has {blocks} of {length_s:g} s "
            f"({(until_s - from_s) / 3600:.3g} h): take fewer seeds or minutes, or a shorter tail_s"
        )
    return starts_s[place(seed, len(starts_s))]


def place(seed: int, blocks: int) -> int:
    """Which of the blocks, in order of time, a seed takes."""
    near = [step for step in range(1, blocks + 1) if math.gcd(step, blocks) == 1]
    step = min(near, key=lambda each: abs(each - GOLDEN * blocks))
    return seed * step % blocks
