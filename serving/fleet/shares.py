"""How much of a tenant's share of the fleet is each replica's to give? Pure, over arrays.

Weight, floor, `tokens_per_minute` and `max_waiting` are promised for the fleet, but each replica
acts on its own. So the controller divides them at every short tick, and tells each replica which
part it gives. A part ends with the controller's lease; without one a replica gives the whole.

Source: distributed rate limiting, by flow-proportional shares (Raghavan et al., Cloud Control with
Distributed Rate Limiting, SIGCOMM 2007): each limiter gets a part of one limit, by the demand that
it sees. Here the demand is a backlog, and what a tenant gets where it has none comes off first. The
share of the fleet itself is weighted max-min (Bertsekas and Gallager, Data Networks, 6.5.2).

Bound: between two ticks nobody corrects a replica. In a tick of T seconds a tenant takes at most
T times what the replicas do in a second that it sends to, so at most that less its share too much,
the answers of those admitted included. The next tick sees this as service.

Costs grow with replicas times tenants.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.contracts import TenantPart

# Of each share, so much is divided evenly: a backlog that begins between two ticks is served, too.
EVEN = 0.1

Table = NDArray[np.float64]  # a row for each replica, a column for each tenant


def fleet_shares(
    weights: NDArray[np.float64], backlog: Table, service: Table
) -> NDArray[np.float64]:
    """What each tenant is owed of the work that the whole fleet does.

    Weighted max-min: each asks for what it got and for what waits, and nobody gets more than it
    asks for while others get less for their weight.

    Args:
        weights: of the contract, all above 0, shape (tenants,).
        backlog: work that waits, of each tenant on each replica.
        service: work done since the last tick, in the same unit.

    Returns:
        Of the work done, shape (tenants,); it adds up to all of it.
    """
    asked = (backlog + service).sum(axis=0)
    order = np.argsort(asked / weights, kind="stable")
    modest, heavy = asked[order], weights[order]
    before = np.concatenate(([0.0], np.cumsum(modest[:-1])))
    left = np.cumsum(heavy[::-1])[::-1]  # weights of this one and of all after it
    levels = (service.sum() - before) / left
    # All from the first on that asks for more than the level get the level.
    enough = levels <= modest / heavy
    level = levels[np.argmax(enough)] if enough.any() else np.inf
    owed: NDArray[np.float64] = np.minimum(asked, level * weights)
    return owed


def divide(weights: NDArray[np.float64], backlog: Table, service: Table) -> Table:
    """Which part of its share of the fleet a tenant has on each replica.

    E is what the fleet owes a tenant. On a replica where it got s and b waits, s * s / (s + b) of E
    is there already: all of s where nothing waits, and nothing where much does. The rest of E goes
    where it waits, by its backlog there. Without a backlog anywhere, and for `EVEN` of each share,
    all replicas have as much.

    Args:
        weights: as in `fleet_shares`.
        backlog: as there.
        service: as there.

    Returns:
        Parts, shape (replicas, tenants), none below 0; each column adds up to 1.
    """
    settled = service * _over(service, service + backlog)
    owed, gets = fleet_shares(weights, backlog, service), settled.sum(axis=0)
    # Who gets more than it is owed where it need not wait has nothing left where it does.
    settled = _over(settled, np.maximum(owed, gets))
    rest = 1.0 - settled.sum(axis=0)
    return _partly_even(settled + rest * _over(backlog, backlog.sum(axis=0)), backlog > 0)


def divide_by_demand(demand: Table) -> Table:
    """The parts of a limit, by what comes to each replica; as `divide` returns them.

    Args:
        demand: what was asked for lately, what was refused included, in any unit.
    """
    return _partly_even(_over(demand, demand.sum(axis=0)), demand > 0)


def parts_of(
    tenants: Sequence[str], shares: Table, demand_parts: Table
) -> list[dict[str, TenantPart]]:
    """What each replica is told. Even shares change nothing, nor does a fleet of one replica.

    Limits are rounded down there, but never to 0: replicas may come to that much more together.

    Args:
        tenants: by column.
        shares: of weights and floors, from `divide`.
        demand_parts: of `tokens_per_minute` and `max_waiting`, from `divide_by_demand`.
    """
    if len(shares) == 1:
        return [{}]
    told = zip((shares * len(shares)).tolist(), demand_parts.tolist(), strict=True)
    return [
        {name: TenantPart(*part) for name, *part in zip(tenants, *rows, strict=True)}
        for rows in told
    ]


def _over(table: Table, whole: NDArray[np.float64]) -> Table:
    """`table / whole`, and 0 where that is 0 / 0."""
    return np.divide(table, whole, out=np.zeros_like(table), where=whole > 0)


def _partly_even(parts: Table, wanted: NDArray[np.bool_]) -> Table:
    parts = np.where(wanted.any(axis=0), parts, 1.0 / len(parts))
    return EVEN / len(parts) + (1.0 - EVEN) * parts
