"""How does the page say what matters? The dialogue of `hmas tell`, one request for each step.

Who may write is decided before (`hmas_agents.ui.guard`). Nothing comes into force but by an answer
`y` to what was previewed.
"""

import threading
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.told import list_told, take_back
from hmas_agents.config import Config
from hmas_agents.ui.server import Json


class Words(BaseModel):
    """What an operator wants."""

    model_config = ConfigDict(extra="forbid")

    text: str


class Answer(BaseModel):
    """What an operator says to a preview or a question; nothing only asks where it stands.

    Attributes:
        text: other words, for `edit` or to a question.
        changes: as the preview showed them; where others wait meanwhile, it is refused.
    """

    model_config = ConfigDict(extra="forbid")

    answer: Literal["", "y", "n", "edit"] = ""
    text: str = ""
    changes: list[dict[str, Any]] | None = None


class TellRoutes:
    """The routes under /api/tell and /api/told.

    Args:
        settings: of the controller that the words are for.
        asks_model: whichever model is served reads them (see `open_dialogue`).
        problem: why nothing can be told here; empty where it can.
    """

    def __init__(self, settings: Config, *, asks_model: bool = False, problem: str = "") -> None:
        self._settings, self._asks_model, self._problem = settings, asks_model, problem
        self._lock = threading.Lock()  # of two answers to one preview, the second comes too late

    def routes(self) -> list[Route]:
        """What the server mounts."""
        return [
            Route("/api/tell", self.tell, methods=["POST"]),
            Route("/api/tell/{told:int}", self.answer, methods=["POST"]),
            Route("/api/told", self.list_told),
            Route("/api/told/{told:int}/untell", self.untell, methods=["POST"]),
        ]

    async def tell(self, request: Request) -> Response:
        """Read, check and preview a text."""
        text = Words.model_validate_json(await request.body()).text
        return await self._done(lambda: self._step(None, Answer(text=text)))

    async def answer(self, request: Request) -> Response:
        """Go on with a text that waits."""
        said = Answer.model_validate_json(await request.body())
        return await self._done(lambda: self._step(request.path_params["told"], said))

    def list_told(self, request: Request) -> Response:  # noqa: ARG002  a route's signature
        """What is in force or to come, and what waits for an answer."""
        settings = self._settings
        found = [] if self._problem else list_told(settings.ledger.path)
        return Json({"told": found, "engine": settings.engine.url, "problem": self._problem})

    async def untell(self, request: Request) -> Response:
        """Take a text back."""
        told = request.path_params["told"]

        def end() -> dict[str, Any]:
            take_back(self._settings, told)
            return {"told": told, "taken_back": True}

        return await self._done(end)

    def _step(self, told: int | None, said: Answer) -> dict[str, Any]:
        # The twin and LangGraph take seconds to load, which the page's start need not wait for.
        from graphs.dialogue import open_dialogue, read_text

        words = read_text(said.text) if told is None else ""
        with open_dialogue(self._settings, asks_model=self._asks_model) as dialogue:
            if told is None:
                return dialogue.document(dialogue.begin(words))
            at = dialogue.resume(told)
            if said.changes is not None and said.changes != at.work.get("changes"):
                raise CommandError(f"{told} was put otherwise meanwhile: look at it again", FAILED)
            if said.answer or said.text:
                at = dialogue.answer(at, said.answer, said.text)
            return dialogue.document(at)

    async def _done(self, work: Callable[[], dict[str, Any]]) -> Response:
        def alone() -> dict[str, Any]:
            if self._problem:
                raise CommandError(self._problem)
            with self._lock:
                return work()

        return Json(await run_in_threadpool(alone))
