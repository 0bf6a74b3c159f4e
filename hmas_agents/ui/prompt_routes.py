"""How does the page show and change prompts? Versions, a live check, labels.

A thin layer over `prompts.edit`: what may be written, and how, is decided there.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hmas_agents.ui.draft import check_draft
from prompts import edit
from prompts.loader import load_prompt
from prompts.store import PromptError, labels, names, read, version_path, versions


class Draft(BaseModel):
    """A text that may become a version."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=200_000)


class NewLabel(BaseModel):
    """What a label is to mean from now on."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(max_length=100)
    version: int = Field(ge=1)


class PromptRoutes:
    """The routes under /api/prompts, for the prompts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def routes(self) -> list[Route]:
        """What the server mounts."""
        return [
            Route("/api/prompts", self.list_prompts),
            Route("/api/prompts/{name}/versions", self.new_version, methods=["POST"]),
            Route("/api/prompts/{name}/labels", self.set_label, methods=["POST"]),
            Route("/api/prompts/{name}/check", self.check, methods=["POST"]),
            Route("/api/prompts/{name}/{version:int}", self.show),
        ]

    def list_prompts(self, request: Request) -> Response:  # noqa: ARG002  a route's signature
        """Every version with its labels; a broken one with what is wrong with it."""
        meaning = labels(self.root)
        listed = []
        for name in names(self.root):
            rows = []
            for version in versions(name, self.root):
                row: dict[str, Any] = {"version": version, "description": "", "problem": ""}
                row["labels"] = [k for k, v in meaning.get(name, {}).items() if v == version]
                try:
                    row["description"] = load_prompt(name, version, self.root).head.description
                except PromptError as error:
                    row["problem"] = str(error)
                rows.append(row)
            listed.append({"name": name, "versions": rows})
        return JSONResponse({"prompts": listed, "labels": edit.LABEL_NAMES})

    def show(self, request: Request) -> Response:
        """The text of one version, also of one that cannot be loaded: it may be repaired."""
        name, version = request.path_params["name"], request.path_params["version"]
        text = read(version_path(name, version, self.root))
        return JSONResponse({"name": name, "version": version, "text": text})

    async def check(self, request: Request) -> Response:
        """What is wrong with a draft, its tokens, and how it differs from the current version."""
        draft = Draft.model_validate_json(await request.body())
        return await _answer(lambda: self._checked(request.path_params["name"], draft.text))

    async def new_version(self, request: Request) -> Response:
        """Publish a draft as the next version."""
        draft, name = Draft.model_validate_json(await request.body()), request.path_params["name"]
        return await _answer(lambda: {"version": edit.new_version(name, draft.text, self.root)})

    async def set_label(self, request: Request) -> Response:
        """Point a label at a version."""
        new = NewLabel.model_validate_json(await request.body())
        name = request.path_params["name"]

        def write() -> dict[str, Any]:
            edit.set_label(name, new.label, new.version, self.root)
            return {"labels": labels(self.root).get(name, {})}

        return await _answer(write)

    def _checked(self, name: str, text: str) -> dict[str, Any]:
        checked = check_draft(name, text, self.root)
        version = labels(self.root).get(name, {}).get("current")
        if version is None:
            return checked | {"diff": "", "against": ""}
        current = read(version_path(name, version, self.root))
        old, new = (s.splitlines(keepends=True) for s in (current, text.rstrip() + "\n"))
        diff = "".join(difflib.unified_diff(old, new, f"v{version} (current)", "this text"))
        return checked | {"diff": diff, "against": f"v{version}"}


async def _answer(work: Callable[[], dict[str, Any]]) -> Response:
    return JSONResponse(await run_in_threadpool(work))
