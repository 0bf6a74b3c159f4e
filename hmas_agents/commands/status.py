"""`hmas status`: what is the engine doing now?"""

import json
import time
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    TokenOption,
    UrlOption,
    read_config,
)
from serving.contracts import PERSON, Snapshot, encode
from serving.contracts.rules import format_rules, rules_in_force
from serving.engines.protocol import Engine, EngineUnavailable
from serving.engines.ranks import in_step, rank_name
from serving.hook.lease import owned_by, stopped_by
from serving.policies import format_policy

_NAME_COLUMNS = 30


def status(
    *,
    url: UrlOption = None,
    token_file: TokenOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and leave.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between looks.")] = 1,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the engine: queue, batch, KV cache, policy, lease, limits, tenants; of a fleet all.

    Try:

      hmas status                     live, until Ctrl-C

      hmas status --once              one look, for a script or a paste

      hmas status --json | jq .queue  the snapshot as the controller sees it
    """
    from serving.engines.live import read_token
    from serving.fleet.connect import connect

    given = {"engine.url": url, "engine.token_file": token_file}
    resolved = read_config(config, given)
    engine_config, own = resolved.engine, resolved.own_tenants
    engine: Engine = connect(engine_config.url, read_token(engine_config.token_file))
    if as_json:
        typer.echo(json.dumps(encode(engine.snapshot()), indent=2))
    elif once:
        Console().print(render_snapshot(engine.snapshot(), own))
    else:
        _follow(engine, every_s, own)


def _follow(engine: Engine, every_s: float, own: tuple[str, ...] = ()) -> None:
    """Redraw until interrupted; an engine that goes away is shown, and waited for."""
    with Live(render_snapshot(engine.snapshot(), own), auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                try:
                    live.update(render_snapshot(engine.snapshot(), own), refresh=True)
                except EngineUnavailable as error:
                    live.update(Text(f"waiting for the engine: {error}"), refresh=True)
        except KeyboardInterrupt:
            return


def render_snapshot(snapshot: Snapshot, own: tuple[str, ...] = ()) -> Group:
    """The snapshot as text, a table of its ranks or replicas, and one of tenants.

    `own`: tenants of the controller's own requests, which come last.
    """
    queue, batch, kv, limits = snapshot.queue, snapshot.batch, snapshot.kv, snapshot.limits
    owner = snapshot.controller_id or "none: the engine's default policy is in force"
    lease = f", lease {snapshot.lease_left_s:.0f} s left" if snapshot.controller_id else ""
    if snapshot.controller_id.startswith(PERSON):
        owner, lease = owned_by(snapshot.controller_id, snapshot.lease_left_s), ""
    if snapshot.stopped is not None:
        owner = stopped_by(snapshot.stopped, snapshot.now_s)
    limited = "limits per rank" if snapshot.ranks else "limits"
    facts = Table.grid(padding=(0, 2))
    rows = {
        "policy": f"{format_policy(snapshot.policy, snapshot.params)}, epoch {snapshot.epoch}",
        "contract": f"epoch {snapshot.contract_epoch} (`hmas contract show`)",
        "controller": owner + lease,
        "queue": f"{queue.waiting} waiting ({queue.waiting_tokens} tokens, "
        f"{queue.queued_prefill_s:.1f} s of prefill), oldest {queue.oldest_wait_s:.1f} s, "
        f"{queue.hopeless} past saving, laxity p10 {_seconds(queue.p10_laxity_s)}",
        "batch": f"{batch.running} running ({batch.decoding} decoding, {batch.prefilling} "
        f"prefilling), step {batch.last_step_s * 1e3:.0f} ms, "
        f"decode slack p10 {_seconds(batch.decode_slack_p10_s)}",
        "kv cache": f"{kv.used_blocks} of {kv.total_blocks} blocks "
        f"({kv.used_blocks / max(1, kv.total_blocks):.0%}), predicted peak "
        f"{kv.predicted_peak_blocks}, {kv.preemptions} preemptions",
        limited: f"{limits.max_active_requests} active requests, {limits.token_budget} tokens "
        f"per step (last {batch.last_token_budget}), long prefill "
        f"{limits.long_prefill_threshold or 'off'}",
        "rules": format_rules(dict.fromkeys(rules_in_force(limits), True))
        or "none: steps as vLLM makes them",
        "engine": f"vLLM {snapshot.vllm_version}, {batch.steps} steps",
    }
    if snapshot.policy_errors:
        rows["errors"] = f"{snapshot.policy_errors} in the hook, last: {snapshot.last_error}"
    if not in_step(snapshot):
        rows["differ"] = "they hold different decisions or contracts; the next brings them together"
    others = [r for r in snapshot.ranks if r.controller_id not in {"", snapshot.controller_id}]
    if others:
        rows["others"] = "\n".join(f"{one.controller_id} on {rank_name(one)}" for one in others)
    if snapshot.away:
        rows["away"] = "\n".join(f"{name}: {why}" for name, why in snapshot.away.items())
    for name, text in rows.items():
        facts.add_row(Text(name, style="bold"), Text(text))
    tables = [_replicas(snapshot)] * bool(snapshot.ranks) + [_tenants(snapshot, own)]
    return Group(facts, *tables)


def _replicas(fleet: Snapshot) -> Table:
    """A row for each rank, in a fleet of each replica that answers, and each that is away."""
    table = Table(box=None, padding=(0, 1))
    for name in ("replica" if any(one.replica for one in fleet.ranks) else "", "state", "policy"):
        table.add_column(name)
    for name in ("epoch", "waiting", "running", "kv"):
        table.add_column(name, justify="right")
    for one in fleet.ranks:
        table.add_row(
            _end_of(rank_name(one)),
            _state(one, fleet),
            one.policy,
            str(one.epoch),
            str(one.queue.waiting),
            str(one.batch.running),
            f"{one.kv.used_blocks / max(1, one.kv.total_blocks):.0%}",
        )
    for name in fleet.away:
        table.add_row(_end_of(name), "away", "-", "-", "-", "-", "-")
    return table


def _state(one: Snapshot, fleet: Snapshot) -> str:
    """Whether what is in force on the fleet is in force on one; if not, what is."""
    if one.stopped is not None:
        return "stopped"
    if one.controller_id == fleet.controller_id:
        return "ok" if one.contract_epoch == fleet.contract_epoch else "old contract"
    return "other" if one.controller_id else "default"


def _end_of(name: str) -> str:
    """What tells pods apart stands at the end of their names."""
    return name if len(name) <= _NAME_COLUMNS else "…" + name[1 - _NAME_COLUMNS :]


def _tenants(snapshot: Snapshot, own: tuple[str, ...]) -> Table:
    """What tenants sent and got since start, in 80 columns; `--json` has every count."""
    table = Table(box=None, collapse_padding=True, pad_edge=False)
    for name in ("tenant", "class"):  # they give way where there is little room
        table.add_column(name, overflow="ellipsis")
    for name in ("received", "inside", "rejected", "met", "cached", "out"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in sorted(snapshot.counters, key=lambda counter: counter.tenant in own):
        table.add_row(
            Text(c.tenant + "*" * (c.tenant in own)),
            Text(c.slo_class),
            _count(c.received),
            _count(c.received - c.finished - c.aborted),  # rejected ones were never received
            _count(c.rejected),
            f"{c.met / c.judged:.1%}" if c.judged else "-",
            f"{c.cached_prompt_tokens / c.prompt_tokens:.1%}" if c.prompt_tokens else "-",
            _count(c.output_tokens),
        )
    if any(c.tenant in own for c in snapshot.counters):
        table.caption, table.caption_justify = "* the controller's own requests", "left"
    return table


def _count(number: int) -> str:
    if number < 100_000:
        return str(number)
    return f"{number / 1e3:.0f}k" if number < 1_000_000 else f"{number / 1e6:.1f}M"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
