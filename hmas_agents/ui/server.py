"""Which address shows what? The page's HTTP server, on the loopback interface only.

Every look reads the ledger anew. Nothing here writes to it, or talks to an engine: that is done by
the routes that `hmas ui` adds (`graphs.tell_routes`).
"""

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.intent.told import ToldError
from hmas_agents.ledger import LedgerError, LedgerReader
from hmas_agents.ledger.writer import to_json
from hmas_agents.ui.comparison import compare_runs
from hmas_agents.ui.decision_view import view_decision
from hmas_agents.ui.guard import Guard
from hmas_agents.ui.ledgers import Ledgers, UnknownRun, describe
from hmas_agents.ui.prompt_routes import PromptRoutes
from hmas_agents.ui.row_list import list_rows
from hmas_agents.ui.timeline import build_timeline, summarise_run
from prompts.store import ROOT, PromptError
from serving.engines.protocol import EngineUnavailable

LOOPBACK = "127.0.0.1"
PAGE = Path(__file__).parent / "page"


class UiError(RuntimeError):
    """The page cannot be served; says what to do."""


class Json(Response):
    """JSON of ledger values: NaN becomes null, unknown objects their text."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode."""
        return to_json(content).encode("utf-8", "replace")


class LedgerRoutes:
    """The routes that read ledgers."""

    def __init__(self, ledgers: Ledgers) -> None:
        self.ledgers = ledgers

    def routes(self) -> list[Route]:
        """What the server mounts."""
        return [
            Route("/api/pulse", self.pulse),
            Route("/api/runs", self.list_runs),
            Route("/api/runs/{key}", self.show_run),
            Route("/api/runs/{key}/decisions", self.list_decisions),
            Route("/api/decisions/{key}", self.show_decision),
            Route("/api/compare/{a}/{b}", self.compare),
        ]

    def pulse(self, request: Request) -> Response:
        """Asked every other second: are the ledgers there, and did `?run=KEY` get new rows?"""
        stamps = {}
        for key in request.query_params.getlist("run"):
            with (
                contextlib.suppress(UnknownRun, LedgerError),
                self.ledgers.read_run(key) as (_, data),
            ):
                stamps[key] = data.stamp
        states = [asdict(state) for state in self.ledgers.states()]
        runs = [key for key, _ in self.ledgers.list_runs()]
        return Json({"ledgers": states, "runs": runs, "stamps": stamps})

    def list_runs(self, request: Request) -> Response:  # noqa: ARG002  a route's signature
        """Every run of every ledger, oldest first."""
        rows = [
            describe(key, self.ledgers.locate(key)[0], run) for key, run in self.ledgers.list_runs()
        ]
        return Json({"runs": rows})

    def show_run(self, request: Request) -> Response:
        """One run's figures and timeline; `?bin_s=` sets the width of a bin."""
        key, width = request.path_params["key"], request.query_params.get("bin_s", "")
        width_s = int(width) if width.isdecimal() and int(width) > 0 else None
        with self.ledgers.read_run(key) as (run, data):
            return Json(
                {
                    "run": describe(key, self.ledgers.locate(key)[0], run),
                    "summary": summarise_run(key, run, data),
                    "timeline": build_timeline(data, width_s),
                    "stamp": data.stamp,
                }
            )

    def list_decisions(self, request: Request) -> Response:
        """One run's decisions, newest first: `?horizon=&only=changed|faults&before=ID`."""
        query = request.query_params
        before = query.get("before", "")
        with self.ledgers.read_run(request.path_params["key"]) as (_, data):
            return Json(
                list_rows(
                    data,
                    horizon=query.get("horizon", ""),
                    only=query.get("only", ""),
                    before=int(before) if before.isdecimal() else None,
                )
            )

    def show_decision(self, request: Request) -> Response:
        """One decision in full."""
        key = request.path_params["key"]
        path, decision_id = self.ledgers.locate(key)
        with LedgerReader(path) as reader:
            stored = reader.get_decision(decision_id)
        return Json(view_decision(stored, self.ledgers.paths.index(path)))

    def compare(self, request: Request) -> Response:
        """Two runs on one scale."""
        a, b = request.path_params["a"], request.path_params["b"]
        with self.ledgers.read_run(a) as first, self.ledgers.read_run(b) as second:
            return Json(compare_runs((a, *first), (b, *second)))


def build_app(
    ledgers: Ledgers,
    port: int,
    token: str,
    prompts_root: Path = ROOT,
    more: Sequence[Route] = (),
) -> Starlette:
    """The application, for whoever knows the token and names this port of the loopback interface.

    Args:
        ledgers: what is shown.
        port: where the page is served.
        token: opens the page, as `/?token=`.
        prompts_root: folder of the prompts that may be edited.
        more: routes behind the same guard.
    """
    page = (PAGE / "index.html").read_text(encoding="utf-8")

    async def index(request: Request) -> Response:  # noqa: ARG001  a route's signature
        return HTMLResponse(page)

    return Starlette(
        routes=[
            Route("/", index),
            Mount("/page", StaticFiles(directory=PAGE)),
            *LedgerRoutes(ledgers).routes(),
            *PromptRoutes(prompts_root).routes(),
            *more,
        ],
        middleware=[
            Middleware(
                Guard,
                hosts=[f"{LOOPBACK}:{port}", f"localhost:{port}"],
                token=token,
                cookie=f"hmas-ui-{port}",
            )
        ],
        exception_handlers={
            HTTPException: _refuse(lambda error: getattr(error, "status_code", 400)),
            UnknownRun: _refuse(lambda _: 404),
            LedgerError: _refuse(lambda _: 404),
            PromptError: _refuse(lambda _: 422),
            ValidationError: _refuse(lambda _: 422),
            ToldError: _refuse(lambda _: 422),
            CommandError: _refuse(
                lambda error: 409 if getattr(error, "code", 0) == FAILED else 422
            ),
            EngineUnavailable: _refuse(lambda _: 503),
        },
    )


def bind(port: int) -> socket.socket:
    """A listening socket of the loopback interface; port 0 takes a free one.

    Raises:
        UiError: the port is taken or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise UiError(
            f"--port {port}: {LOOPBACK}:{port} cannot be served: {error.strerror}; "
            "name another, or 0 for a free one"
        ) from error
    return listener


def build_server(app: Starlette) -> uvicorn.Server:
    """A quiet server; run it with the socket from `bind`."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _refuse(status: Callable[[Exception], int]) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:  # noqa: ARG001  a handler's
        problems = getattr(error, "problems", None) or [getattr(error, "detail", "") or str(error)]
        return JSONResponse({"error": "\n".join(problems)}, status(error))

    return answer
