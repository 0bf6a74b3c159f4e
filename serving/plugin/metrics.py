"""What does Prometheus see of tenants and SLO classes? Families on vLLM's own /metrics.

The totals live in the engine core; each API server follows them once a second, and
this collector shows the last ones. So of several API servers each shows the engine's totals,
not its own part. Cardinality is bounded by `max_tenants`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.routing import Mount

from serving.contracts.rules import COUNTERS
from serving.contracts.state import WITHIN_S
from serving.perception.latencies import BOUNDS, Measure

_COUNTERS = {
    "received": "Requests that reached the engine",
    "finished": "Requests that were served to their end",
    "aborted": "Requests that were aborted or failed",
    "met": "Requests that met all their SLO targets",
    "withdrawn": "Aborted requests that left while nothing was due, neither met nor missed",
    "rejected": "Requests that were refused before they reached the engine",
    "output_tokens": "Output tokens of finished requests",
    "prompt_tokens": "Prompt tokens of admitted requests",
    "cached_prompt_tokens": "Prompt tokens of admitted requests that the KV cache held",
}
_HISTOGRAMS: dict[Measure, str] = {
    "ttft_seconds": "Time to first token",
    "inter_token_seconds": "Time between two steps that gave a request tokens",
    "queue_seconds": "Time from arrival to the first step that scheduled the request",
    "slo_used_ratio": "Largest share of an SLO target that a request used up; 1 and less met all",
}


def take_over_metrics(app: FastAPI) -> CollectorRegistry | None:
    """The registry behind /metrics of one API server of several; None where there is but one.

    With several (PROMETHEUS_MULTIPROC_DIR) vLLM shows what all of them wrote into files, which no
    collector can join. Then /metrics becomes ours: vLLM's files, and whatever is registered here,
    of any kind.
    """
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return None
    from vllm.v1.metrics.prometheus import get_prometheus_registry

    registry: CollectorRegistry = get_prometheus_registry()
    route = Mount("/metrics", make_asgi_app(registry=registry))
    route.path_regex = re.compile("^/metrics(?P<path>.*)$")  # as vLLM's: no redirect to /metrics/
    app.router.routes.insert(0, route)
    return registry


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
        yield from self._histograms()
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
            "stopped": GaugeMetricFamily(
                "hmas_stopped", "1 while the kill switch keeps every decision out", labels=["rank"]
            ),
        }
        hints = _hint_families()
        policy = GaugeMetricFamily(
            "hmas_policy_info", "Policy in force", labels=["rank", "policy"]
        )
        rules = CounterMetricFamily(
            "hmas_rule",
            "What rules and guarantees did: "
            + "; ".join(f"{name}: {text}" for name, text in COUNTERS.items()),
            labels=["rank", "rule"],
        )
        for rank in self._ranks:
            label = str(rank["rank"])
            for rule, count in rank["rules"].items():
                rules.add_metric([label, rule], count)
            for key, gauge in gauges.items():
                gauge.add_metric([label], rank[key])
            policy.add_metric([label, rank["policy"]], 1)
            _add_hint(hints, label, rank["hint"])
        yield from gauges.values()
        yield from hints.values()
        yield policy
        yield rules

    def _histograms(self) -> Iterator[Metric]:
        """Per tenant and SLO class, summed over ranks."""
        counts: dict[tuple[str, str, str], list[int]] = {}
        totals: dict[tuple[str, str, str], float] = defaultdict(float)
        for rank in self._ranks:
            for row in rank["histograms"]:
                key = row["measure"], row["tenant"], row["slo_class"]
                before = counts.get(key) or [0] * len(row["counts"])
                counts[key] = [a + b for a, b in zip(before, row["counts"], strict=True)]
                totals[key] += row["total"]
        for name, text in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"hmas_{name}", text, labels=["tenant", "slo_class"])
            bounds = [*map(floatToGoString, BOUNDS[name]), "+Inf"]
            for key in sorted(key for key in counts if key[0] == name):
                cumulated = list(zip(bounds, accumulate(counts[key]), strict=True))
                family.add_metric([*key[1:]], cumulated, totals[key])
            yield family


def _hint_families() -> dict[str, GaugeMetricFamily]:
    """For routers: what an engine owes and what a prompt costs, as in `RoutingHint`."""
    return {
        "prefill_due_s": GaugeMetricFamily(
            "hmas_prefill_due_seconds",
            "Prefill that comes before a request whose first token is due within so many seconds",
            labels=["rank", "within"],
        ),
        "prefill_s_per_token": GaugeMetricFamily(
            "hmas_prefill_seconds_per_token", "Time that a prompt token takes", labels=["rank"]
        ),
        "decode_step_s": GaugeMetricFamily(
            "hmas_decode_step_seconds", "Time of a step without a prompt", labels=["rank"]
        ),
    }


def _add_hint(
    families: dict[str, GaugeMetricFamily], rank: str, hint: dict[str, Any] | None
) -> None:
    if hint is None:
        return
    bounds = [*map(floatToGoString, WITHIN_S), "+Inf"]
    for within, due_s in zip(bounds, hint["prefill_due_s"], strict=True):
        families["prefill_due_s"].add_metric([rank, within], due_s)
    for name in ("prefill_s_per_token", "decode_step_s"):
        families[name].add_metric([rank], hint[name])
