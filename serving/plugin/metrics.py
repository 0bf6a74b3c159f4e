"""What does Prometheus see of tenants and SLO classes? Families on vLLM's own /metrics.

The totals live in the engine core; the API server follows them once a second, and
this collector shows the last ones. Cardinality is bounded by `max_tenants`.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_COUNTERS = {
    "received": "Requests that reached the engine",
    "finished": "Requests that were served to their end",
    "aborted": "Requests that were aborted or failed",
    "met": "Requests that met all their SLO targets",
    "rejected": "Requests that were refused before they reached the engine",
    "output_tokens": "Output tokens of finished requests",
    "prompt_tokens": "Prompt tokens of admitted requests",
    "cached_prompt_tokens": "Prompt tokens of admitted requests that the KV cache held",
}


class TenantCollector(Collector):
    """Shows the last `contracts.Totals` of every engine core."""

    def __init__(self) -> None:
        self._ranks: list[dict[str, Any]] = []

    def update(self, ranks: list[dict[str, Any]]) -> None:
        """Take over the newest totals, as encoded."""
        self._ranks = ranks

    def collect(self) -> Iterator[Metric]:
        """Totals summed over ranks; state per rank."""
        totals: dict[tuple[str, str, str], int] = defaultdict(int)
        for rank in self._ranks:
            for row in rank["counters"]:
                for name in _COUNTERS:
                    totals[name, row["tenant"], row["slo_class"]] += row[name]
        for name, text in _COUNTERS.items():
            unit = name if name.endswith("_tokens") else f"requests_{name}"
            family = CounterMetricFamily(f"hmas_{unit}", text, labels=["tenant", "slo_class"])
            for (counter, tenant, slo_class), value in sorted(totals.items()):
                if counter == name:
                    family.add_metric([tenant, slo_class], value)
            yield family
        gauges = {
            "epoch": GaugeMetricFamily("hmas_epoch", "Decision epoch", labels=["rank"]),
            "lease_left_s": GaugeMetricFamily(
                "hmas_lease_left_seconds", "Time left on the controller's lease", labels=["rank"]
            ),
            "policy_errors": GaugeMetricFamily(
                "hmas_faults", "Faults in the hook since start", labels=["rank"]
            ),
            "waiting": GaugeMetricFamily(
                "hmas_waiting_requests", "Requests in the hook's queue", labels=["rank"]
            ),
            "running": GaugeMetricFamily(
                "hmas_running_requests", "Requests in the batch", labels=["rank"]
            ),
            "shed": GaugeMetricFamily(
                "hmas_shed_share", "Share of sheddable requests refused", labels=["rank"]
            ),
        }
        policy = GaugeMetricFamily(
            "hmas_policy_info", "Policy in force", labels=["rank", "policy"]
        )
        rules = CounterMetricFamily(
            "hmas_rule",
            "What rules and guarantees did (serving.contracts.RuleCounts)",
            labels=["rank", "rule"],
        )
        for rank in self._ranks:
            label = str(rank["rank"])
            for rule, count in rank["rules"].items():
                rules.add_metric([label, rule], count)
            for key, gauge in gauges.items():
                gauge.add_metric([label], rank[key])
            policy.add_metric([label, rank["policy"]], 1)
        yield from gauges.values()
        yield policy
        yield rules
