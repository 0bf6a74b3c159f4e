"""How are a trace's rows brought to a load? On the trace's own clock: an hour stays an hour.

Nobody knows who sent a row, so nobody's rate can be scaled: more load is copies of the trace, less
are fewer of its rows. Used for suites whose trace has no clients, and by `evals.plan`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evals.requests.columns import RequestColumns
from evals.requests.sending import Block, Clock
from evals.requests.trace import TraceError
from evals.suite.traffic_spec import TenantSpec
from serving.contracts import TraceRequest

SPREAD_S = 60.0  # a copy of the trace begins up to so much later


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a trace as a sender, from 0 s to the end of the block."""

    columns: RequestColumns

    def send(self, factor: float, block: Block) -> RequestColumns:
        """As `Sender.send`."""
        rng = np.random.default_rng([block.seed, 4])
        offered = times(self.columns, block.length_s, factor, rng)
        clock = Clock.of(block, "")
        whole = clock.passed(block.length_s) / block.length_s
        return replace(offered, arrival_s=clock.moments(offered.arrival_s * whole))


def times(
    columns: RequestColumns, span_s: float, factor: float, rng: np.random.Generator
) -> RequestColumns:
    """The rows `factor` times, from 0 s to `span_s`; once is the trace itself.

    Above 1 come copies, each begun up to a minute later (its end comes round to its start), so
    that their bursts do not fall together. Below a whole number of copies each request stays
    with equal chance. Copies share no prompts with each other.
    """
    count, copies = len(columns), max(1, math.ceil(factor))
    later_s = rng.uniform(0.0, min(SPREAD_S, span_s), copies)
    later_s[0] = 0.0
    flat = ((columns.arrival_s + later_s[:, np.newaxis]) % span_s).ravel()
    flat[:count] = columns.arrival_s  # the last one of all may come at the very end
    kept = np.arange(len(flat))
    if factor < copies:
        kept = kept[rng.random(len(flat)) < factor / copies]
    kept = kept[np.argsort(flat[kept], kind="stable")]
    copy, rows = np.divmod(kept, count)
    prefixes: tuple[tuple[int, ...], ...] = ()
    if columns.prefixes:
        prefixes = tuple(
            tuple(block * copies + k for block in columns.prefixes[row])
            for k, row in zip(copy.tolist(), rows.tolist(), strict=True)
        )
    return replace(columns.at(rows), arrival_s=flat[kept], prefixes=prefixes)


def with_tenants(
    columns: RequestColumns, tenants: Sequence[TenantSpec], seed: int
) -> RequestColumns:
    """Public traces name no tenants: rows get one by chance, in proportion to the weights.

    Raises:
        TraceError: there is no tenant.
    """
    if not tenants:
        raise TraceError("there are no tenants to draw onto the rows of this trace")
    weights = np.array([tenant.weight for tenant in tenants])
    rng = np.random.default_rng([seed, 5])
    drawn = rng.choice(len(tenants), len(columns), p=weights / weights.sum())
    return replace(
        columns,
        sender=drawn.astype(np.int32),
        senders=tuple(TraceRequest(0.0, 1, 1, t.name, t.slo_class, t.priority) for t in tenants),
    )
