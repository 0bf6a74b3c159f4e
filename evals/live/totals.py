"""What has an engine counted? By its own counters, and by its /metrics, which follow them."""

import time
from collections import Counter
from collections.abc import Iterable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serving.contracts import TenantCounters

Totals = dict[str, Counter[str]]  # requests since the engine's start, by counter and tenant
_COUNTERS = ("received", "finished", "aborted")


def engine_totals(counters: Iterable[TenantCounters]) -> Totals:
    """The totals in the counters of a snapshot."""
    totals: Totals = {name: Counter() for name in _COUNTERS}
    for row in counters:
        for name, tenants in totals.items():
            tenants[row.tenant] += getattr(row, name)
    return totals


def exported_totals(url: str, settle_s: float = 2.5) -> Totals:
    """The totals on the /metrics of a server, which follows its engine once a second."""
    time.sleep(settle_s)
    totals: Totals = {name: Counter() for name in _COUNTERS}
    text = httpx.get(f"{url}/metrics", timeout=30, follow_redirects=True).text
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("hmas_requests_")
        if name in totals and name != family.name:
            for sample in family.samples:
                totals[name][sample.labels["tenant"]] += int(sample.value)
    return totals
