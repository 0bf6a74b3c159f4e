"""In what order does the long horizon work? About every minute, or on an alarm.

observe -> summarise -> propose -> verify -> act -> record. The model and the rule
table propose, guardrails and the twin verify, one tool acts. Driven by
`graphs.control_loop`, in a background thread when live.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graphs.parts import Parts, executed
from hmas_agents import controller_metrics as metrics
from hmas_agents import rule_table
from hmas_agents.agents.asking import messages_for
from hmas_agents.agents.summary import summarise
from hmas_agents.choice import Key, choose, key_of
from hmas_agents.follow_up import rollback_of
from hmas_agents.guardrails import OK, permit
from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.situation import Situation, encode_situation
from hmas_agents.telemetry.tracing import invoke_agent, note_outcome
from hmas_agents.twin.candidates import candidates_for, differing
from hmas_agents.twin.prediction import NOT_PURSUED, Past, Prediction, gain, margin, terms
from hmas_agents.twin.question import Candidate
from hmas_agents.twin.twin import Twin
from prompts.loader import Message, sha256
from serving.contracts import Snapshot, encode
from serving.contracts.rules import OFF, RULES
from serving.policies import parse_policy

MIN_REPLAYED = 30  # fewer requests predict nothing
SHOWN = 4  # of the candidates
BACK = "what control starts with: it needs no gain"
BACK_LOSS = 0.005  # so much less than what is in force it may promise


class Cancelled(Exception):
    """The controller closes: the choice of policy under way is dropped between two steps."""


class LongHorizon(TypedDict, total=False):
    """What travels along the edges; the first two come in from the loop."""

    trigger: str
    budget_s: float | None
    situation: Situation
    rollback: Proposal | None
    record: DecisionRecord
    messages: list[Message]
    incumbent: Proposal
    chosen: Proposal


def observe(parts: Parts, work: LongHorizon) -> LongHorizon:
    """Look at the engine, and at what became of earlier decisions."""
    situation = parts.watch.situation()
    snapshot = situation.snapshot
    rollback = settle(parts, snapshot.now_s)
    state = replace(situation.state, proposed=parts.follow_up.proposed)
    situation = replace(situation, state=state)
    record = DecisionRecord(
        horizon="long",
        at_s=snapshot.now_s,
        mode=parts.config.control.mode,
        trigger="rollback" if rollback else work["trigger"],
        state=asdict(situation.state),
        epoch_before=snapshot.epoch,
        policy_before=snapshot.policy,
        snapshot_before=encode(snapshot),
        situation={} if parts.ledger is None else encode_situation(situation),
    )
    return {
        "situation": situation,
        "rollback": rollback,
        "record": record,
        "incumbent": incumbent_of(snapshot),
    }


def summarise_state(parts: Parts, work: LongHorizon) -> LongHorizon:
    """Write what the model would be told, by the prompt and the tools as their files are now."""
    record, state = work["record"], work["situation"].state
    prompt, allowed = parts.prompt.current(), parts.config.control.allow_policies
    record.summary = summarise(state)
    record.faults += parts.prompt.faults + parts.tools.faults
    if parts.agent is not None:
        parts.agent.use(prompt)
        record.prompt_name, record.prompt_version = prompt.head.name, prompt.head.version
    return {"messages": messages_for(prompt, state, allowed)}


def propose(parts: Parts, work: LongHorizon) -> LongHorizon:
    """Ask the model and the rule table."""
    record = work["record"]
    if parts.agent is not None:
        record.prompt_sha256 = sha256(work["messages"])
        record.messages = work["messages"]
        snapshot = work["situation"].snapshot
        allowed = parts.config.control.allow_policies
        with invoke_agent("policy_agent"):
            reply = parts.agent.propose(work["messages"], allowed, snapshot)
        record.model, record.model_latency_s = reply.model, reply.latency_s or None
        record.model_tokens, record.model_prompt_tokens = reply.tokens, reply.prompt_tokens
        record.model_step_share = reply.step_share
        record.raw_replies = reply.raw_replies
        record.faults += reply.faults
        record.proposals += reply.proposals
    if parts.config.control.use_rule_table:
        record.proposals.append(rule_table.choose(work["situation"].state))
    if rollback := work["rollback"]:
        record.proposals.append(rollback)
    return {}


def verify(parts: Parts, work: LongHorizon) -> LongHorizon:
    """Guardrails on every proposal, then the twin on those that may go live; then the choice."""
    record, incumbent, rollback = work["record"], work["incumbent"], work["rollback"]
    state = work["situation"].state
    for proposal in record.proposals:
        if _key(proposal) == _key(incumbent):
            proposal.verdict = "in force already"
        elif proposal is rollback:
            proposal.verdict = OK  # a way back is never held up by dwell or change rate
        else:
            proposal.verdict = permit(proposal, state, parts.config.control, parts.switched_at_s)
    predict(parts, work)
    chosen, record.reason = choose(
        incumbent,
        record.proposals,
        rollback if rollback and rollback.verdict == OK else None,
        twin_enabled=parts.twin is not None,
    )
    record.proposals.append(incumbent)
    return {"chosen": chosen}


def act(parts: Parts, work: LongHorizon) -> LongHorizon:
    """Put the choice in force, with the same tool that rules use."""
    chosen, incumbent, record = work["chosen"], work["incumbent"], work["record"]
    in_force = incumbent
    if chosen is incumbent:
        ack = encode(parts.session.renew())  # the engine confirms what stays in force
    else:
        args = {
            "policy": chosen.policy,
            "params": chosen.params,
            "limits": chosen.limits,
            "reason": record.reason[:200],
        }
        answer = parts.tools.current()["switch_policy"].invoke(args)
        call = executed("switch_policy", args, str(answer))
        record.tool_calls.append(call)
        ack = call.ack
        if call.accepted:
            in_force = chosen
            parts.switched_at_s.append(record.at_s)
    record.predicted = in_force.predicted
    if in_force.spread is not None:
        record.twin["spread"] = in_force.spread
    if in_force.interval:
        record.predicted_low, record.predicted_high = in_force.interval
    record.chosen = {
        "policy": chosen.policy,
        "params": chosen.params,
        "limits": chosen.limits,
        "source": chosen.source,
        "predicted": chosen.predicted,
        "applied": any(call.accepted for call in record.tool_calls),
        "ack": ack,
    }
    return {}


def write_record(parts: Parts, work: LongHorizon) -> LongHorizon:
    """One row of the ledger, whether or not anything changed."""
    record = work["record"]
    after, _ = parts.watch.look()
    record.epoch_after, record.snapshot_after = after.epoch, encode(after)
    # A rollback is not itself rolled back: two policies must not bounce.
    applied = record.chosen["applied"]
    watch_switch = applied and work["chosen"] is not work["rollback"]
    parts.finish(
        record,
        in_force=work["chosen"] if applied else work["incumbent"],
        previous=_way_back(work) if watch_switch else None,
    )
    return {}


def build_long_horizon(
    parts: Parts, first: str = "observe"
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph; invoke it with a trigger and the twin's wall-clock budget (None: no limit).

    From another `first` step on it wants what the steps before would have written.
    """
    graph = StateGraph(LongHorizon)
    graph.add_node("observe", partial(observe, parts))
    graph.add_node("summarise", partial(_unless_closing, summarise_state, parts))
    graph.add_node("propose", partial(_unless_closing, propose, parts))
    graph.add_node("verify", partial(_unless_closing, verify, parts))
    graph.add_node("act", partial(_unless_closing, act, parts))
    graph.add_node("write_record", partial(write_record, parts))

    graph.add_edge(START, first)
    graph.add_edge("observe", "summarise")
    graph.add_edge("summarise", "propose")
    graph.add_edge("propose", "verify")
    graph.add_edge("verify", "act")
    graph.add_edge("act", "write_record")
    graph.add_edge("write_record", END)
    return graph.compile(name="long_horizon")


def _unless_closing(
    step: Callable[[Parts, LongHorizon], LongHorizon], parts: Parts, work: LongHorizon
) -> LongHorizon:
    """The step. What was done is recorded all the same, so the last one is not among these."""
    if parts.closing.is_set():
        raise Cancelled
    return step(parts, work)


def _way_back(work: LongHorizon) -> Proposal:
    """What was in force, with the limits as they were that the choice has changed."""
    limits = encode(work["situation"].limits)
    return replace(work["incumbent"], limits={name: limits[name] for name in work["chosen"].limits})


def incumbent_of(snapshot: Snapshot) -> Proposal:
    """What is in force, as a candidate like the others."""
    return Proposal("incumbent", snapshot.policy, dict(snapshot.params), "in force")


def settle(parts: Parts, now_s: float, final: bool = False) -> Proposal | None:
    """Write back what earlier decisions led to; the rollback that is due, if any."""
    rollback = None
    for settled in parts.follow_up.settle(now_s, parts.watch.realised, final):
        watched = settled.watched
        if parts.ledger is not None:
            parts.ledger.set_realised(watched.decision_id, settled.attainment, settled.requests)
        if not settled.requests:
            continue
        note_outcome(watched.since_s, watched.predicted, settled.attainment, settled.requests)
        metrics.observe_realised(settled.attainment)
        if parts.twin is not None and watched.predicted is not None:
            if parts.switched_at_s[-1:] == [watched.since_s]:  # still the latest switch
                rollback = rollback_of(settled, parts.follow_up.known_good)
            if settled.requests >= MIN_REPLAYED and watched.spread:
                past = Past(watched.predicted, watched.spread, settled.attainment)
                parts.twin.observe(past)
    return rollback


def predict(parts: Parts, work: LongHorizon) -> None:
    """Fill in the twin's figures, and add to the proposals what it found worth a closer look."""
    situation, record, incumbent = work["situation"], work["record"], work["incumbent"]
    twin = parts.twin
    if twin is None or len(situation.requests) < MIN_REPLAYED:
        return
    start = _start(parts, situation.snapshot)
    proposals, kept = _to_try(parts, work, start)
    # Advising, the engine is without the rules that acting would begin with.
    begins = start.limits if parts.config.control.mode == "advise" else {}
    candidates = [
        Candidate(p.policy, p.params, p.limits if p is incumbent else begins | p.limits)
        for p in proposals
    ]
    predictions = twin.predict(situation, candidates, kept=kept, budget_s=work["budget_s"])
    record.faults += twin.faults
    record.proposals += _closer_look(proposals, predictions)
    by_key = {_key(p): prediction for p, prediction in zip(proposals, predictions, strict=True)}
    for proposal in (incumbent, *record.proposals):
        if (prediction := by_key.get(_key(proposal))) is not None:
            note(proposal, prediction, predictions[0], twin)
            is_back = _key(proposal) == _key(start) != _key(incumbent)
            if is_back and proposal.margin is not None and proposal.margin < NOT_PURSUED:
                proposal.margin = -BACK_LOSS
    looked = [] if twin.answer is None else [len(each) for each in twin.answer.forecasts]
    record.twin = {
        "horizon_s": twin.horizon_s(situation) if twin.answer is None else twin.answer.horizon_s,
        "candidates": sum(count > 0 for count in looked),
        "left_out": looked.count(0),
        "futures": looked[0] if looked else 0,
        "forecasts": sum(looked),
        "work_s": 0.0 if twin.answer is None else twin.answer.work_s,
        "wall_s": twin.wall_s,
        "error": twin.calibration.error,
    }


def note(
    proposal: Proposal, prediction: Prediction, incumbent: Prediction | None, twin: Twin
) -> None:
    """Write what the twin says of a proposal into it."""
    proposal.predicted = prediction.mean
    proposal.interval = twin.calibration.interval(prediction)
    proposal.spread = prediction.spread
    if incumbent is not None:
        proposal.gain = gain(prediction, incumbent)
        proposal.margin = margin(prediction, incumbent)
        proposal.terms = terms(prediction, incumbent)


def _to_try(
    parts: Parts, work: LongHorizon, start: Proposal
) -> tuple[list[Proposal], int]:
    """What is in force, what was proposed, the start, and hundreds of others: which are kept."""
    situation, record, incumbent = work["situation"], work["record"], work["incumbent"]
    control = parts.config.control
    # Somebody who asks by hand is told of what may not go live, too.
    asked = [p for p in record.proposals if p.verdict == OK or p.source == "person"]
    others = [
        Proposal("twin", each.policy, each.params, "tried beside what was proposed",
                 limits=each.limits)
        for each in candidates_for(
            situation.snapshot, control.allow_policies, parts.config.twin.candidates,
            parts.config.agents.enabled,
        )
    ]  # fmt: skip
    for proposal in (start, *others):
        proposal.verdict = permit(proposal, situation.state, control, parts.switched_at_s)
    different: dict[Key, Proposal] = {}
    for proposal in (incumbent, *asked, start, *others):
        if proposal.source != "twin" or proposal.verdict == OK:
            different.setdefault(_key(proposal), proposal)
    kept = sum(p.source != "twin" or p is start for p in different.values())
    return list(different.values()), kept


def _key(proposal: Proposal) -> Key:
    return key_of(proposal.policy, proposal.params, proposal.limits)


def _start(parts: Parts, snapshot: Snapshot) -> Proposal:
    """What control starts with: its policy, its rules, and no others."""
    control = parts.config.control
    policy, params = parse_policy(control.start_policy)
    limits = {name: OFF[name] for rule in RULES.values() for name in rule}
    for rule in control.start_rules:
        limits |= RULES[rule]
    limits = differing(snapshot, limits, parts.config.agents.enabled)
    return Proposal("twin", policy, params, BACK, limits=limits)


def _closer_look(
    proposals: Sequence[Proposal], predictions: Sequence[Prediction | None]
) -> list[Proposal]:
    """What nobody proposed and came far enough to be shown: the best few."""
    tried = [
        (len(prediction.forecasts), prediction.worth, -i)
        for i, prediction in enumerate(predictions)
        if prediction is not None and proposals[i].source == "twin"
    ]
    return [proposals[-i] for _, _, i in sorted(tried, reverse=True)[:SHOWN]]
