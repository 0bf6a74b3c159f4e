"""What do the graphs' nodes work with? Everything one controller owns, built once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool

from hmas_agents import controller_metrics as metrics
from hmas_agents.agents.policy_agent import PolicyAgent
from hmas_agents.config import Config
from hmas_agents.follow_up import FollowUp, Watched
from hmas_agents.ledger import Ledger
from hmas_agents.observer import Observer
from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from hmas_agents.twin import Twin
from prompts.loader import Prompt, load_prompt
from serving.engines.protocol import Engine
from tools import ControlSession, ToolResult, build_tools

OnDecision = Callable[[DecisionRecord], None]


@dataclass
class Parts:
    """One controller's parts, and the little that it remembers between two ticks.

    Attributes:
        agent / twin / ledger: None where the configuration leaves them out.
        started: the start policy is in force (or was proposed, in advise mode).
        called_at_s: engine time of the last call of each tool.
        switched_at_s: engine times of the policy switches, oldest first.
    """

    config: Config
    session: ControlSession
    observer: Observer
    tools: dict[str, BaseTool]
    prompt: Prompt
    agent: PolicyAgent | None
    twin: Twin | None
    ledger: Ledger | None
    on_decision: OnDecision
    follow_up: FollowUp = field(default_factory=FollowUp)
    started: bool = False
    called_at_s: dict[str, float] = field(default_factory=dict)
    switched_at_s: list[float] = field(default_factory=list)

    def finish(self, record: DecisionRecord, previous: Proposal | None = None) -> None:
        """Record a decision, count it, tell who listens, and wait for what comes of it."""
        decision_id = 0 if self.ledger is None else self.ledger.record_decision(record)
        metrics.count_decision(record)
        self.on_decision(record)
        if record.horizon == "long" or record.trigger == "start":
            until_s = record.at_s + self.config.control.long_tick_s
            self.follow_up.watch(
                Watched(decision_id, record.at_s, until_s, record.predicted, previous)
            )

    def close(self) -> None:
        """Stop the model's connections, the twin's process, and the ledger."""
        if self.agent is not None:
            self.agent.close()
        if self.twin is not None:
            self.twin.close()
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
) -> Parts:
    """Build a controller's parts; starts nothing.

    Raises:
        PromptError: the configured prompt cannot be used.
        LedgerError: the ledger file is not one.
    """
    prompt = load_prompt(config.prompts.name, config.prompts.label)
    control = config.control
    session = ControlSession(engine, controller_id, control.ttl_s, dry_run=control.mode == "advise")
    ledger = None if ledger_path is None else Ledger(ledger_path, label=run_label, config=config)
    return Parts(
        config=config,
        session=session,
        observer=Observer(engine, config, ledger),
        tools={tool.name: tool for tool in build_tools(session)},
        prompt=prompt,
        agent=PolicyAgent(config.model, prompt) if config.model.enabled else None,
        twin=Twin(config.twin) if config.twin.enabled else None,
        ledger=ledger,
        on_decision=on_decision,
    )


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
