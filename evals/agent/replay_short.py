"""Which calls would the rule agents make today? Recorded short states, decided again.

An edit of a rule, replayed: each recorded decision is judged on its own state and on the calls
that had gone through by then. Quiet ticks leave no state in the ledger, so a rule that now acts
where none did is not seen. No simulation. Called by `hmas replay --horizon short`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evals.report.sheet import Sheet
from hmas_agents.agents.arbiter import PER_S, Arbiter, CallRate
from hmas_agents.agents.calls import RuleCall
from hmas_agents.agents.roster import Roster
from hmas_agents.config import AgentsConfig, Config, RuleModelConfig
from hmas_agents.forms import call_text, clock
from hmas_agents.ledger.reader import LedgerReader, StoredDecision
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.records import ToolCall
from hmas_agents.states import ShortState
from serving.contracts.rules import BY_TOOL

_STATE = TypeAdapter(ShortState)
Calls = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ShortReplayed:
    """One short decision, then and now: arguments by tool, without the reasons."""

    decision: int
    at_s: float
    old: Calls
    new: Calls

    @property
    def changed(self) -> bool:
        """Whether other calls would go through."""
        return self.old != self.new


def replay_short(path: Path, run: int) -> list[ShortReplayed]:
    """Decide every recorded tick of a run again; the start calls are left out.

    Raises:
        LedgerError: no such run, or none of its short states can be read.
    """
    with LedgerReader(path) as reader:
        recorded = reader.get_run(run)
        stored = reader.list_decisions(run, "short")
    agents = _agents(recorded.config)
    roster = Roster(agents)
    replayed, unread = [], ""
    for number, each in enumerate(stored):
        if each.record.trigger == "start":
            continue
        try:
            state = _STATE.validate_python(each.record.state)
        except ValidationError as error:
            unread = str(error.errors()[0]["loc"])
            continue
        arbiter = _arbiter(agents, stored[:number], each.record.at_s)
        verdict = arbiter.arbitrate(roster.ask(state), state.limits, state.now_s)
        replayed.append(
            ShortReplayed(
                decision=each.id,
                at_s=each.record.at_s,
                old={name: _plain(args) for name, args in _went_through(each)},
                new={call["name"]: _plain(call["args"]) for call in verdict.granted},
            )
        )
    if not replayed and unread:
        raise LedgerError(f"{path}: run {run}: its states are of another version: {unread}")
    return replayed


def short_sheet(replayed: Sequence[ShortReplayed]) -> Sheet:
    """The decisions that would go otherwise."""
    rows = [
        [str(each.decision), clock(each.at_s), _text(each.old), _text(each.new)]
        for each in replayed
        if each.changed
    ]
    return Sheet("Short decisions that would go otherwise", ("id", "time", "old", "new"), rows,
                 left_aligned=4)  # fmt: skip


def _text(calls: Calls) -> str:
    made = [ToolCall(tool, args, accepted=True, reason="") for tool, args in calls.items()]
    return ", ".join(map(call_text, made)) or "nothing"


def _agents(config: dict[str, Any]) -> AgentsConfig:
    """The rule agents of the run, without a model in place of one."""
    try:
        agents = Config.model_validate(config).agents
    except ValidationError:
        agents = Config().agents
    return agents.model_copy(update={"model": RuleModelConfig()})


def _arbiter(agents: AgentsConfig, before: Sequence[StoredDecision], now_s: float) -> Arbiter:
    """An arbiter that remembers what had gone through by then."""
    arbiter = Arbiter(CallRate(agents.min_gap_s, agents.max_calls_per_minute))
    for each in before:
        if now_s - PER_S <= each.record.at_s < now_s:
            made: list[RuleCall] = [
                {"name": name, "args": args}
                for name, args in _went_through(each)
                if name in BY_TOOL
            ]
            arbiter.note(made, each.record.at_s)
    return arbiter


def _went_through(stored: StoredDecision) -> list[tuple[str, dict[str, Any]]]:
    """What the arbiter let through: applied, or in advise mode what would have been."""
    return [
        (call.tool, call.args) for call in stored.record.tool_calls if call.accepted or call.ack
    ]


def _plain(args: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in args.items() if key != "reason"}
