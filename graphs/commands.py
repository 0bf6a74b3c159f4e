"""`hmas run`: the agents beside a running server, until told to stop."""

import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from graphs.control_loop import ControlLoop
from hmas_agents.collector import rare_collections
from hmas_agents.commands.options import ConfigOption, TokenOption, UrlOption, read_config
from hmas_agents.config import Config
from hmas_agents.controller_metrics import start_metrics_server
from hmas_agents.forms import decision_text, percent
from hmas_agents.records import DecisionRecord
from hmas_agents.telemetry.start import open_tracing
from serving.engines.live import read_token
from serving.fleet.connect import connect


def run(
    *,
    url: UrlOption = None,
    token_file: TokenOption = None,
    mode: Annotated[
        Literal["advise", "act"] | None,
        typer.Option(help="advise: decide and record. act: also apply."),
    ] = None,
    config: ConfigOption = None,
    ledger: Annotated[Path | None, typer.Option(help="Where decisions are kept.")] = None,
    label: Annotated[str, typer.Option(help="Name of this run in the ledger.")] = "",
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Stand by while another owns the engine, or exit with 3."
        ),
    ] = True,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds.")
    ] = None,
) -> None:
    """Run the agents beside a server: watch it, choose policies, tune limits.

    Start in advise mode, read what it would do with `hmas trace list`, then let it act.
    Ctrl-C gives the engine back to its default policy. Where another controller or a person
    owns the engine, or `hmas stop` was used, it stands by, says so in one line, and takes over
    when the engine is free.

      hmas run                                            watch, write nothing

      hmas run --mode act                                 and apply the decisions

      hmas run --mode act --duration 600 --label trial    for ten minutes, named

    Options left out come from the configuration (`hmas config`). Exit code 3: another owns
    the engine (--no-wait).
    """
    settings = read_config(
        config,
        {
            "engine.url": url,
            "engine.token_file": token_file,
            "control.mode": mode,
            "ledger.path": ledger,
        },
    )
    control(settings, label, duration, wait=wait)


def control(config: Config, label: str, duration_s: float | None, *, wait: bool) -> None:
    """Run the loop until a signal or `duration_s`; `wait` where another owns the engine.

    Raises:
        EngineUnavailable: the engine does not answer when it begins.
        ControllerConflict: another owns it, and we are not to wait.
    """
    console = Console(highlight=False)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    token = read_token(config.engine.token_file)
    engine = connect(config.engine.url, token, look_s=config.control.ttl_s / 3)
    engine.snapshot()
    start_metrics_server(config.metrics.port, config.metrics.host)
    who = f"hmas-{socket.gethostname()}-{os.getpid()}"
    console.print(
        f"{config.control.mode} beside {config.engine.url} as {who}, "
        f"ledger {config.ledger.path} (Ctrl-C ends)"
    )
    loop = ControlLoop(
        engine,
        config,
        config.ledger.path,
        run_label=label,
        controller_id=who,
        token=token,
        stands_by=wait,
        on_decision=lambda record: console.print(line_of(record)),
        on_notice=lambda line: console.print(escape(line), style="yellow"),
        tracing=open_tracing(config.telemetry, who),
    )
    with loop, rare_collections():
        if duration_s is not None:  # of control: getting ready takes seconds
            clock = threading.Timer(duration_s, stop.set)
            clock.daemon = True
            clock.start()
        loop.run_forever(stop)


def line_of(record: DecisionRecord) -> str:
    """One line for a decision: epoch, which horizon, what, why."""
    what = decision_text(record)
    if record.predicted is not None:
        what += f", predicted {percent(record.predicted)}"
    refused = [call.reason for call in record.tool_calls if not call.accepted]
    parts = [f"epoch {record.epoch_after}", f"[bold]{record.horizon}[/]", escape(what)]
    parts.append(escape(record.reason))
    if refused:
        parts.append(f"[yellow]{escape(refused[0])}[/]")
    if record.faults:
        parts.append(f"[red]{escape(record.faults[0])}[/]")
    return "  ".join(parts)
