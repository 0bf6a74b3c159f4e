"""`hmas ui`: how does a person see the ledger in a browser, and say there what matters?"""

import os
import secrets
import sys
import webbrowser
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Annotated

import typer

from hmas_agents.commands.options import (
    ConfigOption,
    ModelOption,
    ModelUrlOption,
    TokenOption,
    UrlOption,
    read_config,
)

SEVERAL = (
    "words are for one controller, and several ledgers are shown: start `hmas ui` with the one "
    "that it writes"
)


def ui(
    *,
    ledger: Annotated[
        list[Path] | None,
        typer.Option(
            "--ledger",
            help="Ledger to show, also several; ledger.path by default.",
            metavar="FILE",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    open_browser: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the browser; done where there is a desktop."),
    ] = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
) -> None:
    """Show runs, decisions and prompts in a local web page, until Ctrl-C.

    The page is served on 127.0.0.1 only, and only to who opens the printed address: its token is
    this start's. A ledger that is not there yet is waited for; one that a controller is writing
    is followed.

    Under "Words" the page does what `hmas tell`, `hmas told` and `hmas untell` do, with the engine
    of --url and beside the ledger that is shown. A model reads the words with --model-url.

    Try:

      hmas ui                                the ledger of `hmas run`, live

      hmas ui --ledger a.sqlite --ledger b.sqlite

      hmas ui --port 8400 --no-open          over SSH: forward the same port (-L)
    """
    from graphs.tell_routes import TellRoutes
    from hmas_agents.ledger import LedgerError, LedgerReader
    from hmas_agents.ui.ledgers import Ledgers
    from hmas_agents.ui.server import LOOPBACK, bind, build_app, build_server

    given = {
        "engine.url": url, "engine.token_file": token_file, "model.base_url": model_url,
        "model.name": model, "ledger.path": ledger[0] if ledger else None,
    }  # fmt: skip
    settings = read_config(config, given)
    ledgers = Ledgers(ledger or [settings.ledger.path])
    words = TellRoutes(
        settings,
        asks_model=model_url is not None or model is not None,
        problem=SEVERAL if len(ledgers.paths) > 1 else "",
    )
    for state in ledgers.states():
        if state.state == "broken":
            raise LedgerError(state.problem)
        if state.state == "waiting":
            typer.echo(f"{state.path}: no ledger there yet; `hmas run` writes one", err=True)
            continue
        with LedgerReader(Path(state.path)) as reader:
            reader.check()
    with bind(port) as listener, ExitStack() as stack:
        number = listener.getsockname()[1]
        token = secrets.token_urlsafe(24)
        url = f"http://{LOOPBACK}:{number}/?token={token}"
        server = build_server(build_app(ledgers, number, token, more=words.routes()))
        typer.echo(f"{url}  (Ctrl-C ends)")
        if _has_desktop() if open_browser is None else open_browser:
            listener.listen()  # the browser's first request waits until the server takes it
            stack.callback(rmtree, _open_unseen(url), ignore_errors=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _open_unseen(url: str) -> Path:
    """Open the address by a file that only this user can read: all users see command lines."""
    folder = Path(mkdtemp(prefix="hmas-ui-"))
    page = folder / "open.html"
    page.write_text(f'<meta http-equiv="refresh" content="0;url={url}">', encoding="utf-8")
    webbrowser.open(page.as_uri())
    return folder


def _has_desktop() -> bool:
    """Elsewhere `webbrowser` may start a text browser in this very terminal."""
    if sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
