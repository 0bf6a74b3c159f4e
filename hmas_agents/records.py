"""What is one decision, from what was seen to what came of it?

The graphs fill a record while they run and hand it to the ledger, which stores it
as one row. Everything in it is JSON-ready.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Horizon = Literal["long", "short"]
Source = Literal["model", "rules", "incumbent", "twin", "person"]


@dataclass(slots=True)
class Proposal:
    """One candidate: a policy, and what comes with it.

    Attributes:
        source: who thought of it; `twin` means that the twin tries what nobody proposed,
            `person` that somebody asked for it in a fork.
        limits: fields of `serving.contracts.Limits` that come with it; the others stay.
        predicted: the twin's attainment (0..1) of the next window under it, or None.
        interval: where the twin expects 90% of such windows; empty without a prediction.
        spread: how far the futures of `predicted` are apart (their standard deviation).
        gain / margin: over the incumbent on the same futures, and what it must exceed.
        terms: what the two were made of (`Calibration.terms` in `hmas_agents.twin.prediction`).
    """

    source: Source
    policy: str
    params: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    confidence: float | None = None
    predicted: float | None = None
    verdict: str = ""
    interval: tuple[float, ...] = ()
    gain: float | None = None
    margin: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    spread: float | None = None
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ToolCall:
    """A tool call as executed: arguments, typed result, and the engine's limits around it."""

    tool: str
    args: dict[str, Any]
    accepted: bool
    reason: str
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    ack: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class DecisionRecord:
    """One row of the ledger.

    Attributes:
        state: the ShortState or LongState as a dictionary.
        trigger: `tick`, `start`, `rollback`, `person`, or the alarms that fired.
        prompt_*: name, version and SHA-256 of the text exactly as sent.
        messages: the prompt as sent, message by message.
        model_tokens / model_prompt_tokens: of prompt and reply together, and of the prompt.
        model_step_share: share of the controlled engine's step time that the asking took
            since the last decision; None where the model runs elsewhere.
        raw_replies: every reply of the model, valid or not, in order.
        faults: what went wrong (`model_timeout`, `reply_invalid`, ...), with detail.
        chosen: what was put in force (or would have been, in advise mode).
        predicted / realised: attainment (goodput over offered) of the next window, and the
            interval that was predicted for it.
        twin: how the prediction was made: `horizon_s`, `candidates` (that were tried),
            `left_out` (that were not, because forecasts were dear), `futures` of what was in force,
            `forecasts` (of all candidates together), `work_s` (counted, not timed), `wall_s`,
            `error` so far, and the `spread` of `predicted`.
        situation: what the twin replays, as `hmas_agents.situation` writes it; empty for
            the short horizon.
    """

    horizon: Horizon
    at_s: float
    mode: str
    trigger: str
    state: dict[str, Any]
    epoch_before: int
    epoch_after: int = 0
    policy_before: str = ""
    summary: str = ""
    prompt_name: str = ""
    prompt_version: int | None = None
    prompt_sha256: str = ""
    model: str = ""
    model_latency_s: float | None = None
    model_tokens: int | None = None
    model_prompt_tokens: int | None = None
    model_step_share: float | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    raw_replies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    snapshot_before: dict[str, Any] = field(default_factory=dict)
    snapshot_after: dict[str, Any] = field(default_factory=dict)
    predicted: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    realised: float | None = None
    realised_requests: int | None = None
    twin: dict[str, Any] = field(default_factory=dict)
    situation: dict[str, Any] = field(default_factory=dict)
