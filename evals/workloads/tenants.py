"""Who sends which request of a trace? Public traces name no tenants, so we draw them.

Each row gets a tenant with the probability of the tenant's weight, and with it the
tenant's SLO class and priority. The same seed gives the same assignment.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.contracts import TraceRequest


@dataclass(frozen=True, slots=True)
class TenantShare:
    """A tenant's part in a mix; `priority` is vLLM's request priority (lower goes first)."""

    name: str
    slo_class: str
    weight: float = 1.0
    priority: int = 0


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
