"""What do the graphs' nodes work with? Everything one controller owns, built once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmas_agents import controller_metrics as metrics
from hmas_agents.agents.policy_agent import PolicyAgent
from hmas_agents.agents.roster import Roster
from hmas_agents.config import Config
from hmas_agents.engine_watch import EngineWatch
from hmas_agents.follow_up import FollowUp, Watched
from hmas_agents.intent.told import told_path
from hmas_agents.intent.words import Words
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from hmas_agents.reload import ReloadedPrompt, ReloadedTools
from hmas_agents.twin.prediction import SCORES_KEPT, Past
from hmas_agents.twin.process import Forecaster
from hmas_agents.twin.twin import Twin
from serving.contracts import PERSON, Snapshot, Stopped
from serving.engines.protocol import Engine
from tools import ControlSession, ToolResult
from tools.session import in_the_way

OnDecision = Callable[[DecisionRecord], None]


@dataclass
class Parts:
    """One controller's parts, and the little that it remembers between two ticks.

    Attributes:
        agent / twin / ledger: None where the configuration leaves them out.
        words: what operators have told; None without a ledger, beside which that lies.
        started: the start policy is in force (or was proposed, in advise mode).
        kept_out: why the controller may not act now, in words; empty where it may.
        kept_out_by: the owner of the lease, or the kill switch; empty where nothing keeps it out.
        last: policy and parameters that a controller, this one or another, had in force last.
        switched_at_s: engine times of the policy switches, oldest first.
        closing: set from the moment on from which no step of a graph is to begin.
    """

    config: Config
    session: ControlSession
    watch: EngineWatch
    tools: ReloadedTools
    roster: Roster
    prompt: ReloadedPrompt
    agent: PolicyAgent | None
    twin: Twin | None
    ledger: Ledger | None
    on_decision: OnDecision
    words: Words | None = None
    follow_up: FollowUp = field(default_factory=FollowUp)
    started: bool = False
    kept_out: str = ""
    kept_out_by: str | Stopped = ""
    last: tuple[str, dict[str, float]] | None = None
    switched_at_s: list[float] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def look_who_owns(self, snapshot: Snapshot) -> None:
        """Stay out of an engine that another owns, or that is stopped; start anew when it is free.

        What a controller had in force last is where the next one starts, if it is allowed:
        the one that stood by goes on where the other ended.
        """
        owner = snapshot.controller_id
        if not self.session.dry_run:
            self.kept_out = in_the_way(snapshot, self.session.controller_id)
            self.kept_out_by = (snapshot.stopped or owner) if self.kept_out else ""
        if self.kept_out:
            self.started = False
        allowed = snapshot.policy in self.config.control.allow_policies
        if owner and allowed and not owner.startswith(PERSON):
            self.last = snapshot.policy, dict(snapshot.params)

    def finish(
        self,
        record: DecisionRecord,
        in_force: Proposal | None = None,
        previous: Proposal | None = None,
    ) -> None:
        """Record a decision, count it, tell who listens, and wait for what comes of it."""
        decision_id = 0 if self.ledger is None else self.ledger.record_decision(record)
        metrics.count_decision(record)
        self.on_decision(record)
        self.follow_up.remember(record)
        if record.horizon == "long" or record.trigger == "start":
            ahead_s = float(record.twin.get("horizon_s", self.config.twin.horizon_s))
            until_s = record.at_s + ahead_s
            self.follow_up.watch(
                Watched(
                    decision_id,
                    record.at_s,
                    until_s,
                    record.predicted,
                    previous,
                    in_force,
                    record.predicted_low,
                    record.predicted_high,
                    record.twin.get("spread"),
                )
            )

    def cancel(self) -> None:
        """End every wait for a model or the twin; a choice under way ends before its next step."""
        self.closing.set()
        self.roster.close()
        if self.agent is not None:
            self.agent.close()
        if self.twin is not None:
            self.twin.close()

    def close(self) -> None:
        """Cancel what is under way, and close the ledger, which nothing may use any more."""
        self.cancel()
        if self.ledger is not None:
            self.ledger.close()


def build_parts(
    engine: Engine,
    config: Config,
    ledger_path: Path | None,
    *,
    run_label: str,
    controller_id: str,
    on_decision: OnDecision,
    token: str = "",
    forecaster: Forecaster | None = None,
) -> Parts:
    """Build a controller's parts; starts nothing. `forecaster`: where the twin computes.

    `token`: signs the agents' own requests; empty means HMAS_TOKEN.

    Raises:
        PromptError, ToolError: the configured prompt, or a tool, cannot be used.
        LedgerError: the ledger file is not one.
    """
    prompt = ReloadedPrompt(config.prompts.name, config.prompts.label)
    control = config.control
    past = past_predictions(ledger_path)
    agent = None
    if config.model.enabled:
        agent = PolicyAgent(config.model, prompt.current(), config.engine.url, token)
    session = ControlSession(engine, controller_id, control.ttl_s, dry_run=control.mode == "advise")
    ledger = None if ledger_path is None else Ledger(ledger_path, label=run_label, config=config)
    return Parts(
        config=config,
        session=session,
        watch=EngineWatch(engine, config, ledger),
        tools=ReloadedTools(session, reload=config.control.reload_tools),
        roster=Roster(config.agents, token),
        prompt=prompt,
        agent=agent,
        twin=Twin(config.twin, past, forecaster) if config.twin.enabled else None,
        ledger=ledger,
        on_decision=on_decision,
        words=_words(engine, ledger_path, advises=session.dry_run),
    )


def _words(engine: Engine, ledger_path: Path | None, *, advises: bool) -> Words | None:
    if ledger_path is None:
        return None
    return Words(told_path(ledger_path), engine, advises=advises)


def past_predictions(ledger_path: Path | None) -> list[Past]:
    """(predicted, realised) of the newest decisions that the ledger has, oldest first."""
    if ledger_path is None or not ledger_path.is_file():
        return []
    with LedgerReader(ledger_path) as reader:
        return reader.predictions(SCORES_KEPT)


def executed(tool: str, args: dict[str, Any], content: str) -> ToolCall:
    """The ledger's entry for a tool call, from the ToolResult in its message."""
    try:
        result = ToolResult.model_validate_json(content)
    except ValueError:  # ToolNode's own words, for a tool that does not exist
        result = ToolResult(accepted=False, reason=content)
    ack = {"accepted": result.accepted, "epoch": result.epoch, "reason": result.reason}
    return ToolCall(
        tool=tool,
        args=args,
        accepted=result.accepted,
        reason=result.reason,
        before=result.before,
        after=result.after,
        ack={**ack, "clamped": result.clamped},
    )
