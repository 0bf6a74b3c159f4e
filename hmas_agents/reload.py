"""Was the prompt or a tool edited while the loop runs?

The graphs ask at every tick for the prompt and the tools as their files are now. That
costs a few `stat` calls while nothing changes. An edit that cannot be used leaves the
last good one in place: it is logged once, and `faults` names it in every decision until
it is put right.
"""

import logging
import threading
from pathlib import Path

from langchain_core.tools import BaseTool

from hmas_agents.agents.asking import check_fit
from prompts.loader import Prompt, load_prompt
from prompts.store import LABELS, LOCK, ROOT, PromptError, find_version, version_path
from tools import ControlSession, Tool, ToolError, ToolFolder, langchain_tool
from tools.folder import FOLDER

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class ReloadedPrompt:
    """The policy agent's prompt, as the label file and the version say now. Thread-safe.

    Attributes:
        problem: why the latest edit is not in use; empty when it is.

    Raises:
        PromptError: at construction, when there is no good one to begin with.
    """

    def __init__(self, name: str, label: str, root: Path = ROOT) -> None:
        self.problem = ""
        self._name, self._label, self._root = name, label, root
        self._lock = threading.Lock()
        self._paths: list[Path] = []
        self._stamps: list[_Stamp] = []
        self._good = self._load()

    def current(self) -> Prompt:
        """The newest version that can be used."""
        with self._lock:
            if self._stamps == [_stamp(path) for path in self._paths]:
                return self._good
            try:
                fresh = self._load()
            except PromptError as error:
                if str(error) != self.problem:
                    kept = f"{self._name} v{self._good.head.version}"
                    logger.warning("the prompt is broken, %s stays in use: %s", kept, error)
                self.problem = str(error)
            else:
                self.problem = ""
                if fresh != self._good:
                    logger.info("prompt %s v%d is in use", self._name, fresh.head.version)
                self._good = fresh
            return self._good

    @property
    def faults(self) -> list[str]:
        """For the decision's record."""
        return [f"prompt_broken: {self.problem}"] if self.problem else []

    def _load(self) -> Prompt:
        """Load what the label means; looks at the files first, so that no edit slips by."""
        self._paths, self._stamps = [], []
        folder = self._root / self._name  # a missing version may turn up in it
        self._watch(self._root / LABELS, self._root / LOCK, folder)
        version = find_version(self._name, self._label, self._root)
        self._watch(version_path(self._name, version, self._root))
        prompt = load_prompt(self._name, version, self._root)
        check_fit(prompt)
        return prompt

    def _watch(self, *paths: Path) -> None:
        self._paths += paths
        self._stamps += [_stamp(path) for path in paths]


class ReloadedTools:
    """The tools as their files are now, writing through one session. Thread-safe.

    Args:
        session: what the tools write through.
        folder: of the tools.
        reload: take edits; else the tools stay what they were at the start.

    Raises:
        ToolError: at construction, when a file in the folder is no usable tool.
    """

    def __init__(
        self, session: ControlSession, folder: Path = FOLDER, *, reload: bool = True
    ) -> None:
        self._session, self._reload = session, reload
        self._lock = threading.Lock()
        self._folder = ToolFolder(folder)
        if self._folder.problems:
            raise ToolError("\n".join(self._folder.problems.values()))
        self._told: set[str] = set()
        self._from: dict[str, Tool] = {}
        self._tools: dict[str, BaseTool] = {}
        self._bind()

    def current(self) -> dict[str, BaseTool]:
        """Tools by name; the same dictionary as before while no tool has changed."""
        with self._lock:
            if self._reload and self._folder.refresh():
                self._bind()
            for problem in set(self._folder.problems.values()) - self._told:
                logger.warning("a tool is broken, its last good version stays: %s", problem)
                self._told.add(problem)
            return self._tools

    @property
    def problem(self) -> str:
        """Why the latest edits are not in use, a line for each; empty when they are."""
        return "\n".join(self._folder.problems.values())

    @property
    def faults(self) -> list[str]:
        """For the decision's record."""
        return [f"tool_broken: {problem}" for problem in self._folder.problems.values()]

    def _bind(self) -> None:
        """Make LangChain tools of those that changed."""
        before, self._from = self._from, self._folder.tools
        self._tools = {
            name: self._tools[name]
            if tool is before.get(name)
            else langchain_tool(tool, self._session)
            for name, tool in self._from.items()
        }
        if before:
            fresh = [name for name, tool in self._from.items() if tool is not before.get(name)]
            logger.info("tools in use as edited: %s", ", ".join(fresh))


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written to or replaced; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
