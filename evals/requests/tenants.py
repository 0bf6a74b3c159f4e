"""Who sends which request of a trace? Public traces name no tenants, so we draw them.

Each row gets a tenant with the probability of the tenant's weight, and with it the
tenant's SLO class and priority. The same seed gives the same assignment.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evals.suite.shapes import Shift
from serving.contracts import TraceRequest


@dataclass(frozen=True, slots=True)
class TenantShare:
    """A tenant's part in a mix; `priority` is vLLM's request priority (lower goes first)."""

    name: str
    slo_class: str
    weight: float = 1.0
    priority: int = 0


def shift_tenants(
    before: Sequence[TraceRequest], shifted: Sequence[TraceRequest], shift: Shift, seed: int
) -> tuple[TraceRequest, ...]:
    """Row by row from `before` where the level of `shift` is 0, from `shifted` where it is 1.

    Both are the same rows with other tenants. Shares of the shift are of the time that they
    span; between the levels a row is drawn with the level's probability.
    """
    rng = random.Random(f"{seed}:shares")
    arrivals_s = np.array([request.arrival_s for request in before])
    levels = shift.level((arrivals_s - arrivals_s[0]) / max(arrivals_s[-1] - arrivals_s[0], 1e-9))
    rows = zip(before, shifted, levels, strict=True)
    return tuple(after if rng.random() < level else row for row, after, level in rows)


def assign_tenants(
    requests: Sequence[TraceRequest], tenants: Sequence[TenantShare], seed: int
) -> tuple[TraceRequest, ...]:
    """Requests with tenant, SLO class and priority drawn by weight.

    Raises:
        ValueError: no tenant has a positive weight.
    """
    cumulative = list(itertools.accumulate(tenant.weight for tenant in tenants))
    if not cumulative or cumulative[-1] <= 0:
        raise ValueError("tenants: at least one tenant needs a weight above 0")
    rng = random.Random(f"{seed}:tenants")
    assigned = []
    for request in requests:
        drawn = rng.random() * cumulative[-1]
        tenant = tenants[min(bisect_right(cumulative, drawn), len(tenants) - 1)]
        assigned.append(
            replace(
                request,
                tenant=tenant.name,
                slo_class=tenant.slo_class,
                priority=tenant.priority,
            )
        )
    return tuple(assigned)
