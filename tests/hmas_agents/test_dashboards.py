"""Does the dashboard, and does each alert, ask for series that are really exported?"""

import json
import re
from dataclasses import fields
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

from hmas_agents.controller_metrics import FAULT_CODES
from hmas_agents.records import Horizon
from serving.contracts import Limits
from tests.hmas_agents import exported_metrics as exported
from tests.source_tree import ROOT
from tests.test_docs import commands, options_missing

FOLDER = ROOT / "hmas_agents" / "dashboards"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())

OURS = exported.engine_series() | exported.controller_series()
SERIES = OURS | exported.vllm_series() | {"up": exported.TARGET}  # `up` is Prometheus's own
# Values of labels that come from closed sets of ours.
CLOSED = {
    "horizon": set(get_args(Horizon)),
    "code": FAULT_CODES | {"other"},
    "limit": {field.name for field in fields(Limits)},
    "rule": exported.rule_names(),
    "job": {job["job_name"] for job in PROMETHEUS["scrape_configs"]},
}
# Metrics of ours that no panel shows, and why.
NOT_SHOWN: dict[str, str] = {}

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
MACROS = {"$__rate_interval": "1m", "$__range": "1h"}


def panel_queries() -> list[tuple[str, str, str]]:
    """(title, query, legend) of every target of every panel."""
    return [(p["title"], t["expr"], t["legendFormat"]) for p in PANELS for t in p["targets"]]


def queries() -> list[tuple[str, str]]:
    """(where, query) of everything that Prometheus is asked."""
    marks = DASHBOARD["annotations"]["list"]
    return [
        *((title, query) for title, query, _ in panel_queries()),
        *((mark["name"], mark["expr"]) for mark in marks),
        *((rule["alert"], rule["expr"]) for rule in ALERTS),
    ]


def parse(query: str) -> Any:
    """The syntax tree. Raises ValueError where the query is none."""
    for macro, value in MACROS.items():
        query = query.replace(macro, value)
    return promql.parse(query)


def nodes(query: str) -> list[Any]:
    """Every node of the syntax tree."""
    found: list[Any] = []
    promql.walk(parse(query), found.append)
    return found


def selectors(query: str) -> list[Any]:
    """The series that a query selects."""
    return [node for node in nodes(query) if isinstance(node, promql.VectorSelector)]


def grouped(query: str) -> set[str]:
    """Labels that a query groups or joins by."""
    found: set[str] = set()
    for node in nodes(query):
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql.AggregateExpr) and modifier:
            found |= set(modifier.labels)
        if isinstance(node, promql.BinaryExpr) and modifier and modifier.matching:
            found |= set(modifier.matching.labels)
    return found


def unknown(query: str) -> list[str]:
    """Metrics, and labels of a metric, that nothing exports."""
    wrong = []
    offered: set[str] = set()
    for selector in selectors(query):
        labels = SERIES.get(selector.name)
        if labels is None:
            wrong.append(str(selector.name))
            continue
        offered |= labels
        asked = {matcher.name for matcher in selector.matchers.matchers}
        wrong += [f"{selector.name}{{{label}}}" for label in sorted(asked - labels)]
    return wrong + sorted(grouped(query) - offered)


def test_the_reader_of_queries_finds_what_is_wrong():
    assert unknown("hmas_epoch") == []
    assert unknown("hmas_epok") == ["hmas_epok"]
    assert unknown("rate(hmas_requests_met[5m])") == ["hmas_requests_met"]
    assert unknown("sum(rate(vllm:num_preemptions_totals[5m]))") == ["vllm:num_preemptions_totals"]
    assert unknown('sum by (tenant) (hmas_epoch{slo="a"})') == ["hmas_epoch{slo}", "tenant"]
    assert unknown("hmas_epoch / on (reason) hmas_faults") == ["reason"]
    with pytest.raises(ValueError, match="parenthesis"):
        parse("sum by tenant (")


def test_the_reader_of_vllms_source_knows_kinds_labels_and_conditions():
    source = """
class L:
    def __init__(self):
        labelnames = ["model_name", "engine"]
        a = self._counter_cls(name="vllm:a", labelnames=labelnames + ["reason"])
        h = self._histogram_cls(name="vllm:tokens_total", labelnames=labelnames)
        if config.extra:
            g = self._gauge_cls(name="vllm:sometimes", labelnames=labelnames)
"""
    found = exported.read_series(source)
    assert found["vllm:a_total"] - exported.TARGET == {"model_name", "engine", "reason"}
    assert "le" in found["vllm:tokens_total_bucket"]
    assert "vllm:tokens_total_sum" in found
    assert not [name for name in found if "sometimes" in name]


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_asks_for_series_and_labels_that_are_exported(where, query):
    assert unknown(query) == []


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_asks_for_values_that_labels_can_have(where, query):
    wrong = []
    for selector in selectors(query):
        for matcher in selector.matchers.matchers:
            values = CLOSED.get(matcher.name)
            if values is not None:
                wrong += [v for v in matcher.value.split("|") if v not in values]
    assert wrong == []


@pytest.mark.parametrize(("title", "query", "legend"), panel_queries())
def test_a_legend_names_labels_that_the_query_leaves(title, query, legend):
    assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped(query)


def test_every_metric_of_ours_is_on_a_panel():
    shown = {s.name for _, query, _ in panel_queries() for s in selectors(query)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in OURS}
    missing = {
        family
        for family in families
        if not {family, f"{family}_bucket", f"{family}_sum", f"{family}_count"} & shown
    }
    assert missing == set(NOT_SHOWN)


def test_the_panels_fit_the_schema_and_each_other():
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
    assert "__inputs" not in DASHBOARD
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        pos = panel["gridPos"]
        assert pos["x"] + pos["w"] <= 24
        cells = {
            (x, y)
            for x in range(pos["x"], pos["x"] + pos["w"])
            for y in range(pos["y"], pos["y"] + pos["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {p["type"] for p in PANELS} == {"timeseries", "stat", "state-timeline"}
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])


def test_the_data_source_is_chosen_in_the_dashboard():
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = re.findall(r'"uid": "([^"]*)"', (FOLDER / "grafana.json").read_text())
    assert set(sources) == {"${datasource}", DASHBOARD["uid"]}
    used = set(re.findall(r"\$(\w+)", " ".join(query for _, query in queries())))
    assert used - {"__rate_interval", "__range", "labels", "value"} <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\S+), (\w+)\)", variable["definition"])
            assert asked
            assert asked[2] in SERIES[asked[1]]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_what_whoever_is_called_needs(rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Hmas[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    quoted = re.findall(r"`(hmas [^`]+)`", rule["annotations"]["runbook"])
    assert quoted


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    assert all(set(group) == {"name", "rules"} for group in RULES["groups"])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_the_labels_of_an_alerts_text_are_those_it_has(rule):
    text = " ".join(rule["annotations"].values())
    named = set(re.findall(r"\$labels\.(\w+)", text))
    kept = grouped(rule["expr"])
    if not kept:  # no aggregation: the labels of the series themselves
        kept = set().union(*(SERIES[s.name] for s in selectors(rule["expr"])))
    assert named <= kept


COMMANDS = sorted(
    {
        command
        for rule in ALERTS
        for text in re.findall(r"`([^`]+)`", " ".join(rule["annotations"].values()))
        for command in commands(text)
    }
)


@pytest.mark.parametrize(("words", "options"), COMMANDS, ids=" ".join)
def test_the_commands_of_the_runbooks_exist(words, options, monkeypatch, capsys):
    assert options_missing(words, options, monkeypatch, capsys) == []


def test_vllms_names_survive_a_scrape_by_prometheus_2():
    # Its Accept header, for which the client writes vllm_x in place of vllm:x (issue 1177).
    encode, _ = choose_encoder("application/openmetrics-text;version=1.0.0")
    registry = CollectorRegistry()
    Gauge("vllm:kv_cache_usage_perc", "As vLLM has it.", registry=registry).set(0.5)
    scraped = encode(registry).decode()
    name = next(line.split()[0] for line in scraped.splitlines() if line.endswith(" 0.5"))
    (job,) = [j for j in PROMETHEUS["scrape_configs"] if j["job_name"] == "hmas-engine"]
    (rule,) = job["metric_relabel_configs"]
    assert (rule["source_labels"], rule["target_label"]) == (["__name__"], "__name__")
    replacement = rule["replacement"].replace("$1", r"\1")
    assert re.sub(f"^(?:{rule['regex']})$", replacement, name) == "vllm:kv_cache_usage_perc"
    assert not re.fullmatch(rule["regex"], "vllm:kv_cache_usage_perc")


def test_the_scrape_jobs_load_these_rules():
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    assert set(CLOSED["job"]) == {"hmas-engine", "hmas-controller"}
