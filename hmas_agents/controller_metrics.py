"""How is the controller itself doing? Prometheus metrics, fed by the graphs.

In a registry of their own: the engine's metrics are on vLLM's `/metrics`. Labels come
from closed sets, so the number of series is bounded.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from hmas_agents.records import DecisionRecord, Horizon
from serving.policies import POLICIES

# Codes of `DecisionRecord.faults` ("code: detail") counted apart; the rest are `other`.
FAULT_CODES = {
    "model_timeout",
    "model_unreachable",
    "reply_truncated",
    "reply_invalid",
    "unknown_policy",
}
TICK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REGISTRY = CollectorRegistry()
_TICK_S = Histogram(
    "hmas_controller_tick_seconds",
    "Duration of a tick; its count is the number of ticks.",
    ["horizon"],
    buckets=TICK_BUCKETS_S,
    registry=REGISTRY,
)
_DECISIONS = Counter(
    "hmas_controller_decisions", "Decisions recorded.", ["horizon", "mode"], registry=REGISTRY
)
_SWITCHES = Counter(
    "hmas_controller_policy_switches", "Decisions that changed the policy.", registry=REGISTRY
)
_FAULTS = Counter(
    "hmas_controller_model_faults", "Faults of the policy agent's model.", ["code"],
    registry=REGISTRY,
)  # fmt: skip
_PREDICTIONS = Counter(
    "hmas_controller_twin_predictions", "Proposals by what the twin made of them.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
_POLICY = Gauge(
    "hmas_controller_policy_info", "1 for the policy in force.", ["policy"], registry=REGISTRY
)


def observe_tick(seconds: float, horizon: Horizon) -> None:
    """Note how long a tick took."""
    _TICK_S.labels(horizon).observe(seconds)


def count_decision(record: DecisionRecord) -> None:
    """Note a decision: its horizon, faults, predictions, and the policy it leaves in force."""
    _DECISIONS.labels(record.horizon, record.mode).inc()
    for fault in record.faults:
        code = fault.partition(":")[0].strip()
        _FAULTS.labels(code if code in FAULT_CODES else "other").inc()
    for proposal in record.proposals:
        _PREDICTIONS.labels("none" if proposal.predicted is None else "made").inc()
    switched = any(call.tool == "switch_policy" and call.accepted for call in record.tool_calls)
    policy = str(record.chosen.get("policy", "")) if switched else record.policy_before
    if switched and policy != record.policy_before:
        _SWITCHES.inc()
    if policy in POLICIES:
        for name in POLICIES:
            _POLICY.labels(name).set(name == policy)


def start_metrics_server(port: int) -> None:
    """Serve the metrics on this machine's `port`; with port 0 nothing is started."""
    if port:
        start_http_server(port, addr="127.0.0.1", registry=REGISTRY)
