"""What does one decision show when it is opened? Its record, without what only the twin reads."""

from dataclasses import asdict
from typing import Any

from hmas_agents.forms import judgement, setting_text, verdict_text
from hmas_agents.ledger import StoredDecision
from hmas_agents.ui.comparison import flatten
from serving.policies import format_policy

# What a decision may change in an engine's snapshot.
ENGINE_KEYS = ("epoch", "policy", "params", "limits", "controller_id", "queue", "batch", "kv")


def view_decision(stored: StoredDecision, ledger: int) -> dict[str, Any]:
    """The record as JSON, what changed around it, and how the prediction did.

    Args:
        stored: the decision.
        ledger: position of its ledger, for the keys of its run and of itself.
    """
    record = stored.record
    view = asdict(record)
    situation = view.pop("situation")
    before, after = view.pop("snapshot_before"), view.pop("snapshot_after")
    for call in view["tool_calls"]:
        call["changes"] = changes(call.pop("before"), call.pop("after"))
    for proposal, shown in zip(record.proposals, view["proposals"], strict=True):
        shown["text"] = setting_text(proposal)
        shown["verdict"] = verdict_text(proposal)
        shown["judgement"] = judgement(proposal) if proposal.source != "incumbent" else ""
    chosen = record.chosen
    return view | {
        "chosen_text": format_policy(str(chosen.get("policy", "")), chosen.get("params") or {}),
        "id": stored.id,
        "run": f"{ledger}-{stored.run_id}",
        "state": flatten(record.state),
        "engine": changes(*({k: s.get(k) for k in ENGINE_KEYS if k in s} for s in (before, after))),
        "replayable": bool(situation),
        "verdict": judge_prediction(
            record.predicted, record.predicted_low, record.predicted_high, record.realised
        ),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys whose values differ, dotted, in the order of `after`."""
    old, new = flatten(before), flatten(after)
    return [
        {"key": key, "before": old.get(key), "after": value}
        for key, value in new.items()
        if old.get(key) != value
    ]


def judge_prediction(
    predicted: float | None, low: float | None, high: float | None, realised: float | None
) -> str:
    """One sentence on prediction against outcome; attainments are 0..1."""
    if realised is None:
        return "What came of it is not known yet: the window after it was not over."
    if predicted is None:
        return f"Realised {realised:.1%}; nothing was predicted."
    if low is None or high is None:
        return f"Realised {realised:.1%}, {realised - predicted:+.1%} from the prediction."
    where = "below" if realised < low else "above" if realised > high else "inside"
    return f"Realised {realised:.1%}: {where} the predicted interval {low:.1%} to {high:.1%}."
