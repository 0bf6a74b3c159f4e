"""How does the short horizon follow what operators have told? Begin, act, end, and record it."""

from graphs.parts import Parts
from hmas_agents.agents.calls import RuleCall, call_for
from hmas_agents.config import Concern
from hmas_agents.intent.shown import told_text
from hmas_agents.intent.words import Turn
from hmas_agents.records import DecisionRecord, ToolCall
from hmas_agents.states import ShortState
from serving.contracts import Snapshot, encode
from serving.contracts.rules import KNOBS

TOLD = "told"  # the trigger of the ledger's rows
REASON = "told by operators (`hmas told`)"
Asked = list[tuple[Concern, RuleCall]]


def follow_words(parts: Parts, snapshot: Snapshot) -> None:
    """Let what was told begin and end; nothing of it acts while the engine is not ours."""
    words = parts.words
    if words is None:
        return
    if parts.kept_out:
        words.stand_by()
    turns = [] if parts.kept_out else words.follow(snapshot, parts.watch.rate)
    parts.watch.told, parts.watch.changes = words.expected, words.changes
    if turns:
        parts.finish(_record(parts, snapshot, turns))


def as_told(parts: Parts, asked: Asked, state: ShortState) -> Asked:
    """The rule agents' calls; where words say what is shed, they stand in for the agent."""
    share = None if parts.words is None else parts.words.shed
    if share is None:
        return asked
    kept = [(concern, call) for concern, call in asked if call["name"] != KNOBS["shed"].tool]
    if state.limits.shed == share:
        return kept
    return [("admission", call_for("shed", share, state, REASON)), *kept]


def _record(parts: Parts, snapshot: Snapshot, turns: list[Turn]) -> DecisionRecord:
    calls = [
        ToolCall(
            TOLD,
            {"told": turn.change.told, "changes": [f"{turn.state}: {told_text(turn.change)}"]},
            accepted=turn.state != "not applied",
            reason=turn.note,
        )
        for turn in turns
    ]
    notes = dict.fromkeys(f"{turn.state}: {turn.note}".rstrip(": ") for turn in turns)
    return DecisionRecord(
        horizon="short", at_s=snapshot.now_s, mode=parts.config.control.mode, trigger=TOLD,
        state={}, epoch_before=snapshot.epoch, epoch_after=snapshot.epoch,
        policy_before=snapshot.policy, chosen={"policy": snapshot.policy},
        reason="; ".join(notes), tool_calls=calls, snapshot_before=encode(snapshot),
        snapshot_after=encode(snapshot),
    )  # fmt: skip
