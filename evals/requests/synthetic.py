"""What do synthetic tenants offer? Gamma arrivals and lognormal lengths, by seed.

Used by suites whose scenario has `trace = "synthetic"`, and by tests that need
traffic with known statistics.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evals.suite.shapes import Lengths
from serving.contracts import TraceRequest


@dataclass(frozen=True, slots=True)
class SyntheticTenant:
    """One tenant's traffic.

    Inter-arrival times are Gamma with mean 1/rate_rps and coefficient of variation
    `arrival_cv` (1 is Poisson, above 1 bursty): shape 1/cv^2, scale cv^2/rate.
    """

    name: str
    slo_class: str
    rate_rps: float
    prompt: Lengths
    output: Lengths
    arrival_cv: float = 1.0
    priority: int = 0


def synthetic_tenants(
    tenants: Sequence[SyntheticTenant], count: int, seed: int
) -> tuple[TraceRequest, ...]:
    """The first `count` requests of all tenants' superposed streams, from 0 s on."""
    streams = [_stream(tenant, count, random.Random(f"{seed}:{tenant.name}")) for tenant in tenants]
    merged = sorted((r for stream in streams for r in stream), key=lambda r: r.arrival_s)[:count]
    start_s = merged[0].arrival_s if merged else 0.0
    return tuple(replace(r, arrival_s=r.arrival_s - start_s) for r in merged)


def _stream(tenant: SyntheticTenant, count: int, rng: random.Random) -> list[TraceRequest]:
    shape = 1 / tenant.arrival_cv**2
    scale_s = tenant.arrival_cv**2 / tenant.rate_rps
    now_s = 0.0
    requests = []
    for _ in range(count):
        now_s += rng.gammavariate(shape, scale_s)
        requests.append(
            TraceRequest(
                arrival_s=now_s,
                prompt_tokens=tenant.prompt.draw(rng),
                output_tokens=tenant.output.draw(rng),
                tenant=tenant.name,
                slo_class=tenant.slo_class,
                priority=tenant.priority,
            )
        )
    return requests
