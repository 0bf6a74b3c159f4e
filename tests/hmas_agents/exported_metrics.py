"""Which series does Prometheus find, and with which labels? From the code that exports them.

Ours from the registries themselves; vLLM's by reading its source, which is much faster than
importing it: those that every server has, whatever its configuration.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import hmas_agents.engine_view  # noqa: F401  what it adds to the registry
from hmas_agents.controller_metrics import REGISTRY
from serving.contracts import HistogramCounts, RoutingHint, TenantCounters, Totals, encode
from serving.contracts.rules import COUNTERS
from serving.perception.latencies import BOUNDS
from serving.plugin.metrics import TenantCollector

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
TARGET = frozenset({"job", "instance"})  # what a scrape adds

Series = dict[str, frozenset[str]]


def series_of(name: str, kind: str, labels: frozenset[str]) -> Series:
    """The series of one metric family, each with its labels."""
    base = name.removesuffix("_total") if kind == "counter" else name
    return {
        base + suffix: labels | TARGET | ({"le"} if suffix == "_bucket" else set())
        for suffix in SUFFIXES[kind]
    }


def engine_series() -> Series:
    """Ours on vLLM's /metrics."""
    counters = (TenantCounters("acme", "interactive"),)
    collector = TenantCollector()
    totals = Totals(
        0, 0, "fcfs", 0.0, 0, 0, 0, counters, dict.fromkeys(COUNTERS, 0),
        histograms=tuple(
            HistogramCounts(name, "acme", "interactive", (1,) * (len(bounds) + 1), 1.0)
            for name, bounds in BOUNDS.items()
        ),
        hint=RoutingHint((0.0,) * 10, 1e-4, 0.01),
    )  # fmt: skip
    collector.update([encode(totals)])
    found: Series = {}
    for family in collector.collect():
        labels = {name for sample in family.samples for name in sample.labels}
        found |= series_of(family.name, family.type, frozenset(labels))
    return found


def controller_series() -> Series:
    """Ours on the controller's port."""
    found: Series = {}
    collectors: Any = set(REGISTRY._names_to_collectors.values())
    for metric in collectors:
        (family,) = metric.describe()
        found |= series_of(family.name, family.type, frozenset(metric._labelnames))
    return found


def rule_names() -> set[str]:
    """Values of the label `rule`."""
    return set(COUNTERS)


def vllm_series() -> Series:
    """vLLM's own, of `vllm/v1/metrics/loggers.py` as installed."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "v1", "metrics", "loggers.py")
    return read_series(source.read_text(encoding="utf-8"))


def read_series(source: str) -> Series:
    """Families that a class of the source creates, those inside an `if` left out."""
    found: Series = {}
    base: frozenset[str] = frozenset()

    def labels_of(node: ast.expr | None) -> frozenset[str]:
        if isinstance(node, ast.List):
            return frozenset(str(e.value) for e in node.elts if isinstance(e, ast.Constant))
        if isinstance(node, ast.BinOp):
            return labels_of(node.left) | labels_of(node.right)
        return base if isinstance(node, ast.Name) else frozenset()

    def visit(node: ast.AST) -> None:
        nonlocal base
        if isinstance(node, ast.If):
            return
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "labelnames":
            base = labels_of(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            kind = node.func.attr.strip("_").removesuffix("_cls")
            given = {item.arg: item.value for item in node.keywords}
            name = given.get("name")
            if kind in SUFFIXES and isinstance(name, ast.Constant):
                found.update(series_of(str(name.value), kind, labels_of(given.get("labelnames"))))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found
