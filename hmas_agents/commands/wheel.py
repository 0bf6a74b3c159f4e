"""How is what a person asks of an engine previewed, asked about, done and recorded?

Used by the commands of `hmas_agents.commands.hand`, and by `hmas contract apply`.
"""

import getpass
import math
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import read_config
from hmas_agents.config import Config
from hmas_agents.forms import AGO, UNITS_S, limit_changes
from hmas_agents.ledger import Ledger, LedgerError, LedgerReader
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord, ToolCall
from serving.contracts import PERSON, PINNED_S, Ack, Decision, Limits, Snapshot, encode
from serving.contracts.near_names import choices
from serving.contracts.rules import KNOBS, OFF, RULES, parse_rules
from serving.engines.live import read_token
from serving.fleet.connect import connect
from serving.hook.lease import clamp, owned_by, stopped_by
from serving.policies import complete_params, format_policy, parse_policy

SWITCHES = {"on": True, "true": True, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be in force, and what had to be changed to fit the server."""

    policy: str
    params: dict[str, float]
    limits: Limits
    clamped: dict[str, float]


class Hand:
    """One command at the wheel of one engine.

    Raises:
        TokenError, EngineUnavailable, CommandError: it cannot be done; nothing was changed.
    """

    def __init__(
        self,
        verb: str,
        url: str | None,
        token_file: Path | None,
        ledger: Path | None,
        config: Path | None,
        reason: str,
        *,
        yes: bool,
        as_json: bool,
    ) -> None:
        if as_json and not yes:
            raise CommandError("--json asks nothing: add --yes")
        given = {"engine.url": url, "engine.token_file": token_file, "ledger.path": ledger}
        self.config: Config = read_config(config, given)
        where = self.config.engine
        self.engine = connect(where.url, read_token(where.token_file))
        self.before = self.engine.snapshot()
        self.verb, self.reason, self.who = verb, reason, whoever_is_here()
        self._yes, self.as_json = yes, as_json

    def put(
        self, policy: str | None, limits: list[str], rules: list[str], ttl_s: float, how_long: str
    ) -> None:
        """Preview and apply a person's decision."""
        before = self.before
        wanted = _wanted(before, policy, limits, rules)
        changed = limit_changes(encode(before.limits), encode(wanted.limits))
        old = format_policy(before.policy, before.params)
        new = format_policy(wanted.policy, wanted.params)
        calls = []
        if old != new:
            changed.insert(0, f"{old} > {new}")
            args = {"policy": wanted.policy, "params": wanted.params}
            calls.append(ToolCall("switch_policy", args, accepted=True, reason=self.reason))
        lines = [f"{', '.join(changed) or f'{new}, as it is'}, {how_long}"]
        lines += [f"{key}: {value:g} is what fits here" for key, value in wanted.clamped.items()]
        lines += [f"limits are per rank, of {len(before.ranks)} ranks"] * bool(before.ranks)
        if old != new:
            lines += self._twin_hint(wanted)
        decision = Decision(
            f"{PERSON}{self.who}", before.epoch + 1, ttl_s, wanted.policy, wanted.params,
            wanted.limits, self.reason or f"hmas {self.verb}",
        )  # fmt: skip
        self.do(lines, lambda: self.engine.apply(decision), calls, changed)

    def do(
        self,
        lines: list[str],
        act: Callable[[], Ack],
        calls: list[ToolCall] | None = None,
        changed: list[str] | None = None,
        told: dict[str, Any] | None = None,
    ) -> None:
        """Show, ask, act, record (with `told`), and say what the engine said."""
        if not self.as_json:
            for line in [*_now(self.before), *lines]:
                typer.echo(line)
        if not self._yes:
            self._ask()
        ack = act()
        after = self.engine.snapshot()
        self._record(ack, after, calls or [], told or {})
        if self.as_json:
            said = {"command": self.verb, "by": self.who, "changes": changed or lines[:1]}
            typer.echo(to_json(said | {"ack": encode(ack), "snapshot": encode(after)}))
        if not ack.accepted:
            raise CommandError(f"the engine refused: {ack.reason}", FAILED)
        if not self.as_json:
            in_force = format_policy(after.policy, after.params)
            typer.echo(f"done: {in_force} is in force, epoch {after.epoch} ({ack.reason})")

    def _ask(self) -> None:
        try:
            agreed = typer.confirm(f"{self.verb}?")
        except (typer.Abort, EOFError):
            agreed = False
        if not agreed:
            raise CommandError("nothing was changed; scripts give --yes", FAILED)

    def _record(
        self, ack: Ack, after: Snapshot, calls: list[ToolCall], told: dict[str, Any]
    ) -> None:
        before, after_ = encode(self.before), encode(after)
        calls = [replace(call, accepted=ack.accepted) for call in calls]
        done = ToolCall(
            self.verb, {"by": self.who, "reason": self.reason, **told}, ack.accepted, ack.reason,
            before["limits"], after_["limits"], encode(ack),
        )  # fmt: skip
        switch = {"switch_policy": calls[0].args} if calls else {}
        record = DecisionRecord(
            horizon="short", at_s=after.now_s, mode="act", trigger=f"person,{self.verb}", state={},
            epoch_before=self.before.epoch, epoch_after=after.epoch,
            policy_before=self.before.policy,
            chosen={"policy": after.policy, self.verb: {"by": self.who}} | switch,
            reason=f"hmas {self.verb}, asked by {self.who}: {self.reason}".rstrip(": "),
            tool_calls=[*calls, done], snapshot_before=before, snapshot_after=after_,
        )  # fmt: skip
        record_by_person(self.config, record, self.verb)

    def _twin_hint(self, wanted: _Wanted) -> list[str]:
        """How to ask the twin, which takes seconds to start."""
        try:
            with LedgerReader(self.config.ledger.path) as reader:
                newest = reader.list_decisions(horizon="long", limit=1)
        except LedgerError:
            return []
        ask = f"--policy {format_policy(wanted.policy, wanted.params)}"
        return [f"what the twin says of it: hmas fork {each.id} {ask}" for each in newest]


def record_by_person(config: Config, record: DecisionRecord, verb: str) -> None:
    """One row of the ledger, in its newest run; a ledger that refuses undoes nothing."""
    try:
        ledger = Ledger(config.ledger.path, label="by hand", config=config, joins=True)
    except LedgerError as error:
        typer.echo(f"hmas {verb}: not recorded: {error}", err=True)
        return
    ledger.record_decision(record)
    ledger.close()


def _wanted(
    before: Snapshot, policy: str | None, limits: list[str], rules: list[str]
) -> _Wanted:
    name, params = before.policy, dict(before.params)
    changes: dict[str, Any] = {}
    try:
        if policy is not None:
            name, given = parse_policy(policy)
            params = complete_params(name, given)
        for rule, on in parse_rules(" ".join(rules)).items():
            changes |= RULES[rule] if on else {key: OFF[key] for key in RULES[rule]}
        changes |= dict(_limit(text) for text in limits)
    except ValueError as error:
        raise CommandError(str(error)) from error
    inside, clamped = clamp(replace(before.limits, **changes), before.envelope)
    return _Wanted(name, params, inside, clamped)


def _limit(text: str) -> tuple[str, Any]:
    """`token_budget=1024`, `follow_slack=on`: a field of Limits and its value."""
    name, sign, value = text.partition("=")
    if name not in KNOBS:
        raise ValueError(f"limit {name!r} does not exist; {choices(name, KNOBS)}")
    knob = KNOBS[name]
    if not knob.unit:
        if value not in SWITCHES:
            raise ValueError(f"--limit {text}: {name} is on or off")
        return name, SWITCHES[value]
    try:
        number = knob.kind(value)
    except ValueError:
        number = math.nan
    if not sign or not math.isfinite(number):
        kind = "a whole number" if knob.kind is int else "a number"
        raise ValueError(f"--limit {text}: {name} is {kind} ({knob.unit}), as in {name}=1")
    return name, number


def read_duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h`, `1d`. Raises CommandError."""
    found = re.fullmatch(AGO, text)
    length_s = float(found[1]) * UNITS_S[found[2]] if found else 0.0
    if not 0 < length_s <= PINNED_S:
        raise CommandError(f"--for {text}: write how long, as in 90s, 15m, 2h or 1d")
    return length_s


def _now(snapshot: Snapshot) -> list[str]:
    """Who steers the engine now."""
    if snapshot.stopped is not None:
        return [stopped_by(snapshot.stopped, snapshot.now_s)]
    if snapshot.controller_id:
        return [owned_by(snapshot.controller_id, snapshot.lease_left_s)]
    return ["nobody steers the engine now: its default is in force"]


def whoever_is_here() -> str:
    """Who has typed this, and where: USER@HOST, as the machine says."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a user of that number
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
