"""What does the controller see of its engine? Prometheus metrics that only it can tell.

The engine's own are on vLLM's `/metrics`. Fed by the loop (limits) and the watch
(the journal); in the controller's registry, so that they are served with the rest.
"""

import math
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge

from hmas_agents.controller_metrics import REGISTRY

_LIMIT = Gauge(
    "hmas_controller_limit",
    "Execution limits after the last decision (serving.contracts.Limits); flags are 0 or 1, "
    "NaN leaves it to the policy.",
    ["limit"],
    registry=REGISTRY,
)
_LOST = Counter(
    "hmas_controller_journal_events_lost",
    "Arrivals and outcomes that the engine overwrote before the controller read them.",
    registry=REGISTRY,
)


def show_limits(limits: Mapping[str, Any]) -> None:
    """Take over limits, as encoded in a snapshot."""
    for name, value in limits.items():
        _LIMIT.labels(name).set(math.nan if value is None else float(value))


def count_lost(events: int) -> None:
    """Note that the journal had lost so many events at a look."""
    _LOST.inc(events)
