"""In what order does the short horizon work? Every few seconds, rules only.

observe -> rule_agents -> arbitrate -> tools -> record; it ends after `arbitrate` when
nothing is to change. The rule agents' calls are real tool calls, so that a model
could take a rule agent's place. Driven by `graphs.control_loop`.
"""

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from graphs.parts import Parts, executed
from hmas_agents.agents.arbiter import RULE_AGENTS, arbitrate
from hmas_agents.agents.calls import RuleCall
from hmas_agents.records import DecisionRecord, ToolCall
from hmas_agents.states import ShortState
from serving.contracts import Snapshot, encode

# Tools run one after the other: each builds on the epoch the last one reached.
RUN_CONFIG: Any = {"max_concurrency": 1}


class ControllerConflict(RuntimeError):
    """Another controller owns the engine; names it and says what to do."""


class ShortHorizon(TypedDict, total=False):
    """What travels along the edges."""

    snapshot: Snapshot
    state: ShortState
    calls: list[RuleCall]
    messages: Annotated[list[AnyMessage], add_messages]


def observe(parts: Parts, _: ShortHorizon) -> ShortHorizon:
    """Look at the engine; make sure that it is ours to change."""
    snapshot, state = parts.observer.look()
    owner, mine = snapshot.controller_id, parts.session.controller_id
    if owner not in {"", mine} and not parts.session.dry_run:
        raise ControllerConflict(
            f"controller {owner!r} owns this engine for another {snapshot.lease_left_s:.0f} s: "
            "stop it, wait for its lease to end, or run with --mode advise"
        )
    return {"snapshot": snapshot, "state": state}


def rule_agents(parts: Parts, work: ShortHorizon) -> ShortHorizon:
    """Ask every rule agent, in order of precedence; at the start, the configuration instead."""
    if not parts.started:
        return {"calls": _start_calls(parts, work["state"])}
    now_s = work["state"].now_s
    since_s = {tool: now_s - at_s for tool, at_s in parts.called_at_s.items()}
    calls = [c for propose in RULE_AGENTS.values() for c in propose(work["state"], since_s)]
    return {"calls": calls}


def arbitrate_calls(parts: Parts, work: ShortHorizon) -> ShortHorizon:
    """One call per tool, as the tool calls of a message."""
    calls = arbitrate(work["calls"])
    epoch = work["state"].epoch
    tool_calls: list[Any] = [
        {"name": call["name"], "args": call["args"], "id": f"{call['name']}-{epoch}"}
        for call in calls
    ]
    for call in calls:
        parts.called_at_s[call["name"]] = work["state"].now_s
    return {"messages": [AIMessage(content="", tool_calls=tool_calls)]}


def record(parts: Parts, work: ShortHorizon) -> ShortHorizon:
    """One row of the ledger for the tick's calls."""
    calls = _executed_calls(work["messages"])
    before, (after, _) = work["snapshot"], parts.observer.look()
    trigger = "tick" if parts.started else "start"
    if trigger == "start":
        parts.started = parts.session.dry_run or all(call.accepted for call in calls)
    parts.finish(
        DecisionRecord(
            horizon="short",
            at_s=work["state"].now_s,
            mode=parts.config.control.mode,
            trigger=trigger,
            state=asdict(work["state"]),
            epoch_before=before.epoch,
            epoch_after=after.epoch,
            policy_before=before.policy,
            chosen=_chosen(before, calls),
            reason="; ".join(call.args["reason"] for call in calls),
            tool_calls=calls,
            snapshot_before=encode(before),
            snapshot_after=encode(after),
        )
    )
    return {}


def anything_to_do(work: ShortHorizon) -> str:
    """On to the tools, or the end of a quiet tick."""
    last = work["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


def build_short_horizon(parts: Parts) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph; invoke it with `({}, RUN_CONFIG)`, once per tick."""
    graph = StateGraph(ShortHorizon)
    graph.add_node("observe", partial(observe, parts))
    graph.add_node("rule_agents", partial(rule_agents, parts))
    graph.add_node("arbitrate", partial(arbitrate_calls, parts))
    graph.add_node("tools", ToolNode(list(parts.tools.values())))
    graph.add_node("record", partial(record, parts))

    graph.add_edge(START, "observe")
    graph.add_edge("observe", "rule_agents")
    graph.add_edge("rule_agents", "arbitrate")
    graph.add_conditional_edges("arbitrate", anything_to_do, ["tools", END])
    graph.add_edge("tools", "record")
    graph.add_edge("record", END)
    return graph.compile(name="short_horizon")


def _start_calls(parts: Parts, state: ShortState) -> list[RuleCall]:
    control = parts.config.control
    reason = "start of control, from the configuration"
    budget = {
        "max_tokens": state.limits.token_budget,
        "follow_slack": control.follow_slack,
        "reason": reason,
    }
    return [
        {"name": "switch_policy", "args": {"policy": control.start_policy, "reason": reason}},
        {"name": "set_token_budget", "args": budget},
    ]


def _chosen(before: Snapshot, calls: list[ToolCall]) -> dict[str, Any]:
    """The policy that the calls leave in force (or would), and each call's arguments."""
    asked = {call.tool: call.args for call in calls}
    return {"policy": asked.get("switch_policy", {}).get("policy", before.policy), **asked}


def _executed_calls(messages: list[AnyMessage]) -> list[ToolCall]:
    asked = {
        call["id"]: call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls
    }
    answers = [m for m in messages if isinstance(m, ToolMessage)]
    return [
        executed(asked[m.tool_call_id]["name"], asked[m.tool_call_id]["args"], str(m.content))
        for m in answers
    ]
