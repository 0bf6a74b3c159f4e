"""Which tools are in the folder, as their files are now?

A file named verb_noun is one tool: the function of that name in it, decorated with
`@tool`. `tools.discover` reads the folder once; `hmas_agents.reload` asks again at every
tick, so that an edit needs no restart and a broken one leaves the last good version. What others
than the user (or root) may write is not run by a process that has begun.
"""

import importlib.util
import os
import re
import stat
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tools.tool import Tool, ToolError

FOLDER = Path(__file__).parent
_VERB_NOUN = re.compile(r"[a-z]+(_[a-z0-9]+)+")
_Stamp = tuple[int, ...]


class ToolFolder:
    """The tools of a folder and what is wrong with its files. Not thread-safe.

    Attributes:
        tools: by name, in alphabetical order; a new dictionary whenever one changed.
        problems: by the name of the file, `FILE:LINE: what is wrong`.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.tools: dict[str, Tool] = {}
        self.problems: dict[str, str] = {}
        self._seen: dict[str, _Stamp] = {}
        self._started = False
        self.refresh()
        self._started = True

    def refresh(self) -> bool:
        """Import what is new or was edited since the last time; True when a tool changed.

        Costs one `stat` per file where nothing changed.
        """
        found, fresh = self._stamps(), {}
        for name in sorted(found):
            if self._seen.get(name) == found[name]:
                continue
            try:
                if self._started:
                    _check_owner(self.folder / f"{name}.py")
                fresh[name] = _load(self.folder / f"{name}.py")
                self.problems.pop(name, None)
            except ToolError as error:
                self.problems[name] = str(error)
        for name in self._seen.keys() - found.keys():
            self.problems.pop(name, None)
            if name in self.tools:  # perhaps in the middle of being saved
                gone = f"{self.folder / name}.py:1: is gone: the tool stays until the next start"
                self.problems[name] = gone
        self._seen = found
        if fresh:
            self.tools = dict(sorted((self.tools | fresh).items()))
        return bool(fresh)

    def _stamps(self) -> dict[str, _Stamp]:
        stamps: dict[str, _Stamp] = {}
        for path in self.folder.glob("*_*.py"):
            if _VERB_NOUN.fullmatch(path.stem):
                try:
                    found = path.stat()
                except OSError:  # renamed in between
                    continue
                stamps[path.stem] = (
                    found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid,
                )  # fmt: skip
        return stamps


def _check_owner(path: Path) -> None:
    """Refuse an edit that another user of the machine may have made.

    Raises:
        ToolError: who else may write the file, and what to do.
    """
    try:
        found = path.stat()
    except OSError as error:  # renamed in between
        raise ToolError(f"{path}:1: {error.strerror}") from error
    if found.st_uid not in {os.geteuid(), 0}:
        raise ToolError(
            f"{path}:1: is not reloaded: it belongs to another user (uid {found.st_uid}); restart "
            "to use it all the same"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ToolError(
            f"{path}:1: is not reloaded: others may write it (mode {found.st_mode & 0o777:o}); "
            "chmod go-w it, or restart to use it all the same"
        )


def _load(path: Path) -> Tool:
    """The tool of a file, from its text: a byte-code cache may be as old as the same second.

    The module is a new one each time, because the last good tool still uses the old one.
    """
    name = f"tools.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has one
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # where pydantic and dataclasses look types up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        return _tool_in(module, path)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, ToolError):
            raise
        raise ToolError(f"{path}:{_line(error, path)}: {type(error).__name__}: {error}") from error


def _tool_in(module: ModuleType, path: Path) -> Tool:
    found = getattr(module, path.stem, None)
    if not isinstance(found, Tool) or found.name != path.stem:
        raise ToolError(
            f"{path}:1: must define a function {path.stem}, as the file is named, "
            "decorated with @tool"
        )
    return found


def _line(error: BaseException, path: Path) -> int:
    """The line of the file where an import failed."""
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(path) and f.lineno), 1)
