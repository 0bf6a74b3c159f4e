"""In what order does the short horizon work? Every few seconds, rules only.

observe -> rule_agents -> arbitrate -> tools -> record; it ends after `observe` while another
owns the engine, and after `arbitrate` when nothing is to change and no refusal is to be told.
The rule agents' calls are real tool calls, so that a model can take a rule agent's place.
Driven by `graphs.control_loop`.
"""

from functools import partial
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from graphs.parts import Parts, executed
from graphs.told import as_told, follow_words
from hmas_agents.agents.arbiter import Arbiter, CallRate, Verdict
from hmas_agents.agents.calls import RuleCall
from hmas_agents.config import Concern
from hmas_agents.records import DecisionRecord, ToolCall
from hmas_agents.states import ShortState
from serving.contracts import Snapshot, encode
from serving.policies import parse_policy

# Tools run one after the other: each builds on the epoch the last one reached.
RUN_CONFIG: Any = {"max_concurrency": 1}


class ShortHorizon(TypedDict, total=False):
    """What travels along the edges."""

    snapshot: Snapshot
    state: ShortState
    asked: list[tuple[Concern, RuleCall]]
    verdict: Verdict
    messages: Annotated[list[AnyMessage], add_messages]


def observe(parts: Parts, _: ShortHorizon) -> ShortHorizon:
    """Look at the engine, whether it is ours to change, and what operators have told."""
    snapshot, state = parts.watch.look()
    parts.look_who_owns(snapshot)
    follow_words(parts, snapshot)
    return {"snapshot": snapshot, "state": state}


def rule_agents(parts: Parts, work: ShortHorizon) -> ShortHorizon:
    """Ask every enabled rule agent; before the start policy is in force, none."""
    if not parts.started:
        return {"asked": []}
    return {"asked": as_told(parts, parts.roster.ask(work["state"]), work["state"])}


def arbitrate(parts: Parts, arbiter: Arbiter, work: ShortHorizon) -> ShortHorizon:
    """What may go of what was asked, as the tool calls of a message; at the start, the start."""
    state = work["state"]
    if parts.started:
        verdict = arbiter.arbitrate(work["asked"], state.limits, state.now_s)
    else:
        verdict = Verdict(granted=_start_calls(parts))
    tool_calls: list[Any] = [
        {"name": call["name"], "args": call["args"], "id": f"{call['name']}-{state.epoch}-{i}"}
        for i, call in enumerate(verdict.granted)
    ]
    return {"verdict": verdict, "messages": [AIMessage(content="", tool_calls=tool_calls)]}


class Caller:
    """LangGraph's node of tools, made anew only after an edit: it reads every signature."""

    def __init__(self) -> None:
        self._tools: dict[str, BaseTool] = {}
        self._node = ToolNode([])

    def node(self, tools: dict[str, BaseTool]) -> ToolNode:
        """The node for `tools`, which are the same dictionary as long as none has changed."""
        if tools is not self._tools:
            self._tools, self._node = tools, ToolNode(list(tools.values()))
        return self._node


def execute(
    parts: Parts, caller: Caller, work: ShortHorizon, config: RunnableConfig
) -> ShortHorizon:
    """Call the tools, as their files are now."""
    node = caller.node(parts.tools.current())
    answers: list[AnyMessage] = node.invoke(work, config)["messages"]
    return {"messages": answers}


def record(parts: Parts, work: ShortHorizon) -> ShortHorizon:
    """One row of the ledger for the tick's calls, those that the arbiter refused included."""
    done = _executed_calls(work["messages"])
    calls = done + [
        ToolCall(refusal.call["name"], refusal.call["args"], accepted=False, reason=refusal.reason)
        for refusal in work["verdict"].refused
    ]
    reasons = dict.fromkeys(call.args["reason"] for call in done)  # each once
    before = work["snapshot"]
    after = parts.watch.look()[0] if done else before
    trigger = "tick" if parts.started else "start"
    if trigger == "start":
        parts.started = parts.session.dry_run or all(call.accepted for call in done)
    parts.finish(
        DecisionRecord(
            horizon="short",
            at_s=work["state"].now_s,
            mode=parts.config.control.mode,
            trigger=trigger,
            state=encode(work["state"]),
            epoch_before=before.epoch,
            epoch_after=after.epoch,
            policy_before=before.policy,
            chosen=_chosen(before, done),
            reason="; ".join(reasons) or "nothing may go",
            faults=parts.tools.faults,
            tool_calls=calls,
            snapshot_before=encode(before),
            snapshot_after=encode(after),
        )
    )
    return {}


def anything_to_do(work: ShortHorizon) -> str:
    """On to the tools; to the record if only refusals are to be told; or the end of a tick."""
    if work["verdict"].granted:
        return "tools"
    return "record" if work["verdict"].news else END


def build_short_horizon(parts: Parts) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph; invoke it with `({}, RUN_CONFIG)`, once per tick."""
    agents = parts.config.agents
    arbiter = Arbiter(CallRate(agents.min_gap_s, agents.max_calls_per_minute))
    graph = StateGraph(ShortHorizon)
    graph.add_node("observe", partial(observe, parts))
    graph.add_node("rule_agents", partial(rule_agents, parts))
    graph.add_node("arbitrate", partial(arbitrate, parts, arbiter))
    graph.add_node("tools", partial(execute, parts, Caller()))
    graph.add_node("record", partial(record, parts))

    graph.add_edge(START, "observe")
    graph.add_conditional_edges(
        "observe", lambda _: END if parts.kept_out else "rule_agents", ["rule_agents", END]
    )
    graph.add_edge("rule_agents", "arbitrate")
    graph.add_conditional_edges("arbitrate", anything_to_do, ["tools", "record", END])
    graph.add_edge("tools", "record")
    graph.add_edge("record", END)
    return graph.compile(name="short_horizon")


def _start_calls(parts: Parts) -> tuple[RuleCall, ...]:
    control = parts.config.control
    reason = "start of control, from the configuration"
    policy, params = parse_policy(control.start_policy)
    if parts.last is not None:
        reason = "start of control, from what was in force last"
        policy, params = parts.last
    switch = {"policy": policy, "params": params, "reason": reason}
    rules: list[RuleCall] = [
        {"name": "switch_rule", "args": {"rule": rule, "on": True, "reason": reason}}
        for rule in control.start_rules
    ]
    return ({"name": "switch_policy", "args": switch}, *rules)


def _chosen(before: Snapshot, calls: list[ToolCall]) -> dict[str, Any]:
    """The policy that the calls leave in force (or would), and each call's arguments."""
    asked = {" ".join((call.tool, call.args.get("rule", ""))).strip(): call.args for call in calls}
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
