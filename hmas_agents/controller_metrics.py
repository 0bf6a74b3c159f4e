"""How is the controller itself doing? Prometheus metrics, fed by the graphs.

In a registry of their own: the engine's metrics are on vLLM's `/metrics`. Labels come
from closed sets, so the number of series is bounded.
"""

import math
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from hmas_agents.follow_up import ROLLBACK
from hmas_agents.records import DecisionRecord, Horizon
from serving.policies import POLICIES

# Codes of `DecisionRecord.faults` ("code: detail") counted apart; the rest are `other`.
FAULT_CODES = {
    "model_timeout",
    "model_unreachable",
    "model_skipped",
    "reply_truncated",
    "reply_invalid",
    "reply_thought",
    "unknown_policy",
    "reason_invented_number",
    "usage_missing",
    "twin_timeout",
    "twin_failed",
    "prompt_broken",
    "tool_broken",
}
TICK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SECONDS_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
_TOOLS = Path(__file__).resolve().parents[1] / "tools"

REGISTRY = CollectorRegistry()
_TICK_S = Histogram(
    "hmas_controller_tick_seconds",
    "Duration of a tick; its count is the number of ticks.",
    ["horizon"],
    buckets=TICK_BUCKETS_S,
    registry=REGISTRY,
)
_TICKS_SKIPPED = Counter(
    "hmas_controller_ticks_skipped",
    "Ticks that were due while the one before was still under way.",
    ["horizon"],
    registry=REGISTRY,
)
_DECISIONS = Counter(
    "hmas_controller_decisions", "Decisions recorded.", ["horizon", "mode"], registry=REGISTRY
)
_SWITCHES = Counter(
    "hmas_controller_policy_switches", "Decisions that changed the policy.", registry=REGISTRY
)
_ROLLBACKS = Counter(
    "hmas_controller_rollbacks", "Switches taken back for coming to less than predicted.",
    registry=REGISTRY,
)  # fmt: skip
_TOOL_CALLS = Counter(
    "hmas_controller_tool_calls",
    "Tool calls by what came of them: applied, refused, or advised (advise mode).",
    ["horizon", "tool", "result"],
    registry=REGISTRY,
)
_POLICY = Gauge(
    "hmas_controller_policy_info", "1 for the policy in force.", ["policy"], registry=REGISTRY
)
_FAULTS = Counter(
    "hmas_controller_faults", "Faults of decisions: of the model, the twin, edited prompts.",
    ["code"], registry=REGISTRY,
)  # fmt: skip
_MODEL_TOKENS = Counter(
    "hmas_controller_model_tokens", "Tokens of the policy agent: prompt or completion.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
_MODEL_S = Histogram(
    "hmas_controller_model_seconds",
    "How long the model was asked for one decision, second attempts included.",
    buckets=SECONDS_BUCKETS_S,
    registry=REGISTRY,
)
_MODEL_STEP_SHARE = Gauge(
    "hmas_controller_model_step_share",
    "Share of the controlled engine's step time that the last decision's asking took (0..1); "
    "0 where the model runs elsewhere.",
    registry=REGISTRY,
)
_PREDICTIONS = Counter(
    "hmas_controller_twin_predictions", "Proposals by what the twin made of them.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
_TWIN_S = Histogram(
    "hmas_controller_twin_seconds", "How long the twin took for one decision.",
    buckets=SECONDS_BUCKETS_S, registry=REGISTRY,
)  # fmt: skip
_TWIN_ERROR = Gauge(
    "hmas_controller_twin_error",
    "Root mean square of predicted - realised attainment over the last decisions.",
    registry=REGISTRY,
)
_PREDICTED = Gauge(
    "hmas_controller_attainment_predicted",
    "Attainment (0..1) of the next window as the twin predicts it, and its interval.",
    ["bound"],
    registry=REGISTRY,
)
_REALISED = Gauge(
    "hmas_controller_attainment_realised",
    "Attainment (0..1) of the last window that is over, among the requests that arrived in it.",
    registry=REGISTRY,
)


def observe_tick(seconds: float, horizon: Horizon) -> None:
    """Note how long a tick took."""
    _TICK_S.labels(horizon).observe(seconds)


def count_skipped(horizon: Horizon, ticks: int = 1) -> None:
    """Note ticks that were due and let pass."""
    _TICKS_SKIPPED.labels(horizon).inc(ticks)


def observe_realised(attainment: float) -> None:
    """Note what a decision's window came to."""
    _REALISED.set(attainment)


def count_decision(record: DecisionRecord) -> None:
    """Note a decision: calls, costs, predictions, faults, and the policy it leaves in force."""
    _DECISIONS.labels(record.horizon, record.mode).inc()
    for fault in record.faults:
        code = fault.partition(":")[0].strip()
        _FAULTS.labels(code if code in FAULT_CODES else "other").inc()
    for call in record.tool_calls:
        result = "applied" if call.accepted else "refused"
        result = "advised" if record.mode == "advise" else result
        _TOOL_CALLS.labels(record.horizon, _tool_label(call.tool), result).inc()
    switched = any(call.tool == "switch_policy" and call.accepted for call in record.tool_calls)
    policy = str(record.chosen.get("policy", "")) if switched else record.policy_before
    if switched and policy != record.policy_before:
        _SWITCHES.inc()
    if switched and record.reason.startswith(ROLLBACK):
        _ROLLBACKS.inc()
    if policy in POLICIES:
        for name in POLICIES:
            _POLICY.labels(name).set(name == policy)
    if record.horizon == "long":
        _count_model(record)
        _count_twin(record)


def start_metrics_server(port: int, host: str) -> None:
    """Serve the metrics at `host`'s `port`; with port 0 nothing is started."""
    if port:
        start_http_server(port, addr=host, registry=REGISTRY)


def _count_model(record: DecisionRecord) -> None:
    prompt = record.model_prompt_tokens or 0
    _MODEL_TOKENS.labels("prompt").inc(prompt)
    _MODEL_TOKENS.labels("completion").inc(max(0, (record.model_tokens or 0) - prompt))
    if record.model_latency_s:  # 0 where the model was not asked
        _MODEL_S.observe(record.model_latency_s)
    _MODEL_STEP_SHARE.set(record.model_step_share or 0.0)


def _count_twin(record: DecisionRecord) -> None:
    for proposal in record.proposals:
        _PREDICTIONS.labels("none" if proposal.predicted is None else "made").inc()
    if "wall_s" in record.twin:
        _TWIN_S.observe(record.twin["wall_s"])
    if record.twin.get("error") is not None:
        _TWIN_ERROR.set(record.twin["error"])
    bounds = (record.predicted_low, record.predicted, record.predicted_high)
    for bound, value in zip(("low", "mean", "high"), bounds, strict=True):
        _PREDICTED.labels(bound).set(math.nan if value is None else value)


def _tool_label(name: str) -> str:
    """The name of a tool that there is; a caller that makes names up adds no series."""
    return name if name.isidentifier() and (_TOOLS / f"{name}.py").is_file() else "other"
