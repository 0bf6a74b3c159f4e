"""A ledger written by hand: two runs of five minutes, and every kind of decision."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from hmas_agents.config import load_config
from hmas_agents.ledger import Ledger
from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from serving.contracts import Outcome
from tests.hmas_agents.samples import outcome, record

START_S = 1_700_000_000.0
LENGTH_S = 300
SCRIPT = '<script>document.title = "stolen"</script><img src=x onerror="document.title=\'stolen\'">'
# A name that closes quotes, turns the reading direction around, and is very long.
HOSTILE_TENANT = f"\"'>{SCRIPT}\u202eevil\u2066 {'x' * 200}"
LONG_TEXT = "all work and no play " * 500
LIMITS = {"max_active_requests": 256, "token_budget": 2048, "follow_slack": True, "shed": 0.0}


def write_ledger(path: Path) -> None:
    """Run 1 acts, run 2 advises on the same traffic."""
    for mode, attained in (("act", 0.85), ("advise", 0.6)):
        config = load_config(None, {"control.mode": mode})
        ledger = Ledger(path, label=f"evening {mode}", config=config)
        for decision in decisions(mode):
            number = ledger.record_decision(decision)
            if decision.predicted is not None:
                ledger.set_realised(number, decision.predicted - 0.01, 240)
        ledger.record_outcomes(traffic(attained))
        ledger.close()


def traffic(attained: float) -> list[Outcome]:
    """Three tenants, 6 requests/s, with a dip in the middle; the third tenant is hostile."""
    found = []
    for number in range(6 * LENGTH_S):
        at_s = START_S + number / 6
        dip = 0.5 * math.exp(-(((number / 6 - 150) / 40) ** 2))
        tenant = ("acme", "globex", HOSTILE_TENANT)[number % 3]
        met = (number * 37 % 100) / 100 < attained - dip - 0.1 * (number % 3)
        miss = "" if met else ("ttft_queue", "tpot")[number % 2]
        found.append(outcome(number, at_s, tenant=tenant, met=met, miss=miss))
    return found


def decisions(mode: str) -> list[DecisionRecord]:
    """Start, limit changes, an alarm, a switch, a broken model, a rollback, hostile text."""
    acts = mode == "act"
    first, then = ("edf", "slide") if acts else ("fcfs", "fcfs")  # advice changes nothing
    return [
        short(0.0, 0, switch("fcfs", "edf", 0, acts), mode, trigger="start"),
        short(40.0, 1, limit(first, 2048, 1536, 1, acts), mode),
        keep(60.0, 2, mode, first, alarms=("rate_up",), predicted=0.74, low=0.68, high=0.79),
        switching(120.0, 2, mode, first),
        keep(180.0, 3, mode, then, predicted=0.62, low=0.63, high=0.7),
        hostile(200.0, 3, mode, then),
        short(240.0, 3, limit(then, 1536, 2048, 3, acts), mode),
        keep(280.0, 4, mode, then),
    ]


def short(
    at_s: float, epoch: int, call: ToolCall, mode: str, trigger: str = "tick"
) -> DecisionRecord:
    """One rule's call, as the short horizon records it."""
    policy = call.before["policy"]
    return record(
        horizon="short", at_s=START_S + at_s, mode=mode, trigger=trigger, policy_before=policy,
        epoch_before=epoch, epoch_after=epoch + call.accepted, tool_calls=[call],
        chosen={"policy": call.after["policy"]}, proposals=[], faults=[], raw_replies=[],
        prompt_name="", prompt_version=None, model="", model_latency_s=None, model_tokens=None,
        summary="", predicted=None, reason="start of control" if trigger == "start" else "TPOT",
        state={"policy": policy, "waiting": 12, "kv_used": 0.4},
    )  # fmt: skip


def keep(
    at_s: float,
    epoch: int,
    mode: str,
    policy: str,
    *,
    alarms: tuple[str, ...] = (),
    predicted: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> DecisionRecord:
    """A long decision that leaves everything as it is."""
    interval = () if low is None or high is None else (low, high)
    return record(
        at_s=START_S + at_s, mode=mode, trigger=",".join(alarms) or "tick", policy_before=policy,
        epoch_before=epoch, epoch_after=epoch, tool_calls=[], faults=[],
        state={"policy": policy, "load": 1.3, "alarms": list(alarms), "attainment": 0.54},
        chosen={"policy": policy, "params": {}, "source": "incumbent", "applied": False},
        proposals=[Proposal("incumbent", policy, predicted=predicted, interval=interval)],
        predicted=predicted, predicted_low=low, predicted_high=high,
        reason="nothing gains more than the margin",
    )  # fmt: skip


def switching(at_s: float, epoch: int, mode: str, policy: str) -> DecisionRecord:
    """The model's proposal wins; in advise mode it is not applied."""
    acts = mode == "act"
    return record(
        at_s=START_S + at_s, mode=mode, trigger="rate_up", policy_before=policy,
        epoch_before=epoch, epoch_after=epoch + acts,
        state={"policy": policy, "load": 1.6, "alarms": ["rate_up", "mix"], "attainment": 0.41},
        tool_calls=[switch(policy, "slide", epoch, acts)],
        messages=[
            {"role": "system", "content": "You choose the scheduling policy."},
            {"role": "user", "content": "Load: overload.\nQueue: long."},
        ],
        proposals=[
            Proposal("model", "slide", {"kappa": 40.0}, "overload", 0.7, 0.81, "ok", (0.75, 0.86)),
            Proposal("rules", "density", {}, "beyond capacity", None, None, "not allowed"),
            Proposal("incumbent", policy, predicted=0.54, interval=(0.49, 0.6)),
        ],
        chosen={
            "policy": "slide", "params": {"kappa": 40.0}, "source": "model", "applied": acts,
            "ack": {"accepted": acts, "epoch": epoch + acts, "reason": "", "clamped": {}},
        },
        predicted=0.81, predicted_low=0.75, predicted_high=0.86,
        twin={"horizon_s": 60.0, "candidates": 257, "forecasts": 560, "wall_s": 0.6, "error": 0.02},
    )  # fmt: skip


def hostile(at_s: float, epoch: int, mode: str, policy: str) -> DecisionRecord:
    """Everything that came from outside tries to be markup, and is long."""
    return dataclasses.replace(
        keep(at_s, epoch, mode, policy),
        trigger=SCRIPT, summary=f"Tenants: {HOSTILE_TENANT}", model=SCRIPT, reason=SCRIPT,
        messages=[{"role": "user", "content": f"{SCRIPT}\n{LONG_TEXT}"}],
        raw_replies=[f"{SCRIPT}\u202e{LONG_TEXT}"], faults=[f"reply_invalid: {SCRIPT}"],
        proposals=[Proposal("model", SCRIPT, reason=SCRIPT, verdict=SCRIPT)],
    )  # fmt: skip


def switch(old: str, new: str, epoch: int, accepted: bool) -> ToolCall:
    """A `switch_policy` call and what the engine said."""
    return _call("switch_policy", {"policy": new}, ("policy", old, new), epoch, accepted)


def limit(policy: str, old: int, new: int, epoch: int, accepted: bool) -> ToolCall:
    """A `set_token_budget` call under a policy, and what the engine said."""
    args, change = {"max_tokens": new}, ("token_budget", old, new)
    return _call("set_token_budget", args, change, epoch, accepted, policy)


def _call(
    tool: str,
    args: dict[str, Any],
    change: tuple[str, Any, Any],
    epoch: int,
    accepted: bool,
    policy: str = "",
) -> ToolCall:
    key, old, new = change
    before = {"epoch": epoch, "policy": policy, "params": {}, **LIMITS, key: old}
    after = {**before, "epoch": epoch + 1, key: new} if accepted else before
    reason = "" if accepted else "advise mode: not applied"
    ack = {"accepted": accepted, "epoch": after["epoch"], "reason": reason, "clamped": {}}
    return ToolCall(tool, {**args, "reason": "overload"}, accepted, reason, before, after, ack)
