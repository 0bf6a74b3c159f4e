"""What do words want of the engine now? Followed by a controller, tick by tick.

Words act as long as a controller does: it begins each change at its time, ends it at its time, and
writes so into the file of what was told. Where it stops acting, the contract is as without words.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hmas_agents.intent.acting import OF_CONTRACT, contract_with, refusals
from hmas_agents.intent.change import Change
from hmas_agents.intent.told import ChangeState, ToldChange, ToldError, ToldStore
from hmas_agents.situation import Expected
from hmas_agents.states import OperatorChange
from serving.contracts import (
    Contract,
    ContractAck,
    ContractChange,
    ContractInForce,
    Snapshot,
)
from serving.engines.protocol import Engine

logger = logging.getLogger(__name__)

BY = "words"  # who the engine is told has changed the contract
COMES_WITHIN_S = 600.0  # announced traffic that is not there by then is not expected any more
RATE_WINDOW_S = 120.0
NEWEST_S = 30.0  # of the traffic that the twin repeats most
ADVISING = "the controller advises, and changes nothing"
# Requests per second of a tenant and a class, None for all, over the last so many seconds.
Rate = Callable[[str | None, str | None, float], float]


@dataclass(frozen=True, slots=True)
class Turn:
    """A change that has begun, has ended or cannot be done: a line for the ledger."""

    change: ToldChange
    state: ChangeState
    note: str


class Words:
    """One controller's view of what was told.

    Args:
        path: the file; it may come later.
        advises: the controller changes nothing.

    Attributes:
        expected: announced changes of traffic, for the twin.
        changes: what is in force or to come, for the policy agent.
        shed: the share of sheddable requests that words want refused; None where they say nothing.
    """

    def __init__(self, path: Path, engine: Engine, *, advises: bool) -> None:
        self._path, self._engine, self._advises = path, engine, advises
        self._store: ToldStore | None = None
        self._kept: tuple[Contract, Contract] | None = None  # without words, and with them
        self._seen: object = None  # which changes of the contract were wanted, and at which epoch
        self._problems: dict[ToldChange, str] = {}
        self._fault = ""
        self.expected: tuple[Expected, ...] = ()
        self.changes: tuple[OperatorChange, ...] = ()
        self.shed: float | None = None

    def follow(self, snapshot: Snapshot, rate: Rate) -> list[Turn]:
        """Begin and end what is due; what that was. Raises EngineUnavailable."""
        if self._store is None and not self._path.exists():
            return []
        try:
            if self._store is None:
                self._store = ToldStore(self._path)
                self._kept = self._store.kept_contract() or self._kept
            turns = self._follow(self._store, snapshot, rate)
        except ToldError as error:
            if str(error) != self._fault:
                logger.warning("no words are in force: %s", error)
            self._fault = str(error)
            self.stand_by()
            return []
        self._fault = ""
        return turns

    def stand_by(self) -> None:
        """Let go of the engine: its contract is as without words. Raises EngineUnavailable."""
        self.expected, self.changes, self.shed, self._seen = (), (), None, None
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._kept is not None and not self._advises:
            (base, applied), held = self._kept, self._engine.contract()
            if held.contract == applied:
                self._apply(base, held)
            self._kept = None

    def _follow(self, store: ToldStore, snapshot: Snapshot, rate: Rate) -> list[Turn]:
        now_s, turns = snapshot.now_s, list[Turn]()
        told = [_with_baseline(one, now_s, rate) for one in store.open_changes()]
        # Of two that say the same of the same, the later one holds.
        holding = {_subject(one.change): one for one in told if one.holds(now_s)}
        if not self._advises:
            wanted = [one for one in holding.values() if one.change.kind in OF_CONTRACT]
            self._keep_contract(store, wanted, snapshot.contract_epoch)
            shed = [one.change.amount for one in holding.values() if one.change.kind == "shed"]
            # What words have set is theirs to set back; an agent may raise it again.
            sets_back = self.shed is not None and snapshot.limits.shed > 0
            self.shed = shed[-1] if shed else 0.0 if sets_back else None
        expected: dict[object, list[Expected]] = {}
        changes: dict[object, OperatorChange] = {}
        for one in told:
            state, note = self._state_of(one, now_s, rate)
            if (state, note) != (one.state, one.note):
                store.mark(one, state, note)
            if state != one.state:
                turns.append(Turn(one, state, note))
            if state in {"ahead", "in force"}:
                changes[state, _subject(one.change)] = OperatorChange(
                    one.change.kind, one.change.amount, one.from_s, one.until_s,
                    one.change.tenant, one.change.slo_class,
                )  # fmt: skip
            if one.change.kind == "expect" and state != "ended":
                expected[_subject(one.change)] = list(_expected(one, now_s, rate))
        self.expected = tuple(each for parts in expected.values() for each in parts)
        self.changes = tuple(changes.values())
        return turns

    def _state_of(self, one: ToldChange, now_s: float, rate: Rate) -> tuple[ChangeState, str]:
        if one.revoked_s is not None:
            return "ended", "taken back"
        if one.is_over(now_s):
            missed = one.state in {"", "ahead"}
            return "ended", "passed without a controller" if missed else "its time is over"
        if not one.holds(now_s):
            return "ahead", ""
        if one.change.kind == "expect":
            return _as_announced(one, now_s, rate)
        problem = ADVISING if self._advises else self._problems.get(one, "")
        return ("not applied", problem) if problem else ("in force", "")

    def _keep_contract(self, store: ToldStore, wanted: list[ToldChange], epoch: int) -> None:
        """Make the contract what it is without words, plus what is wanted."""
        seen = [(one.told, one.number) for one in wanted]
        if (not wanted and self._kept is None) or (seen, epoch) == self._seen:
            return
        held = self._engine.contract()
        is_ours = self._kept is not None and self._kept[1] == held.contract
        base = self._kept[0] if self._kept is not None and is_ours else held.contract
        done, self._problems = list[Change](), {}
        for one in wanted:
            if problems := refusals([*done, one.change], replace(held, contract=base)):
                self._problems[one] = problems[-1]
            else:
                done.append(one.change)
        target = contract_with(base, done)
        epoch = held.epoch
        if target != held.contract:
            store.keep_contract((base, target))  # before it acts: a crash must not lose the base
            ack = self._apply(target, held)
            if not ack.accepted:
                refused = f"the engine refused: {ack.reason}"
                self._problems = dict.fromkeys(wanted, refused)
                return  # the next tick tries again
            epoch = ack.epoch
        self._kept = (base, target) if done else None
        if not done:
            store.keep_contract(None)
        self._seen = seen, epoch

    def _apply(self, contract: Contract, held: ContractInForce) -> ContractAck:
        change = ContractChange(contract, held.epoch + 1, BY, keep_keys=True)
        return self._engine.apply_contract(change)


def _subject(change: Change) -> tuple[str, str | None, str | None]:
    return change.kind, change.tenant, change.slo_class


def _with_baseline(one: ToldChange, now_s: float, rate: Rate) -> ToldChange:
    """With the rate of whom an announcement is about, from when it began."""
    if one.change.kind != "expect" or one.baseline_rps is not None or not one.holds(now_s):
        return one
    change = one.change
    return replace(one, baseline_rps=rate(change.tenant, change.slo_class, RATE_WINDOW_S))


def _as_announced(one: ToldChange, now_s: float, rate: Rate) -> tuple[ChangeState, str]:
    """An announcement ends where the traffic is nearer to what it was than to what was said."""
    change, before_rps = one.change, one.baseline_rps or 0.0
    if now_s < one.from_s + COMES_WITHIN_S or change.amount == 1:
        return "in force", ""
    seen_rps = rate(change.tenant, change.slo_class, RATE_WINDOW_S)
    halfway_rps = before_rps * (1.0 + change.amount) / 2
    if seen_rps > halfway_rps if change.amount > 1 else seen_rps < halfway_rps:
        return "in force", ""
    times = seen_rps / before_rps if before_rps else 0.0
    return "ended", f"did not come: {times:.2g}x what it was, announced {change.amount:g}x"


def _expected(one: ToldChange, now_s: float, rate: Rate) -> Iterator[Expected]:
    """What the twin is to expect beyond what came lately, which may be the change itself."""
    change, factor = one.change, one.change.amount
    if not one.holds(now_s):
        yield Expected(factor, one.from_s, one.until_s, change.tenant, change.slo_class)
        return
    seen_rps = rate(change.tenant, change.slo_class, NEWEST_S)
    left = factor * (one.baseline_rps or 0.0) / seen_rps if seen_rps > 0 else factor
    left = min(max(left, min(1.0, factor)), max(1.0, factor))
    yield Expected(left, one.from_s, one.until_s, change.tenant, change.slo_class)
    if one.until_s is not None and factor > 0:  # and then it is as before
        yield Expected(left / factor, one.until_s, None, change.tenant, change.slo_class)
