"""How are all replicas asked at once, and none of them waited for too long?

A replica that is silent beyond the time limit is asked in the background from then on, without
waiting for it, until it answers again: it costs the others its time limit once, not at each look.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from serving.engines.protocol import Engine, EngineUnavailable

T = TypeVar("T")
_AT_ONCE = 256  # threads, made as they are needed; so many replicas may be silent at once


@dataclass(slots=True)
class _Line:
    """What connects us with one replica: the engine, its last call, whether that was too slow."""

    engine: Engine
    call: Future[Any] | None = None
    silent: bool = False

    def busy(self) -> bool:
        return self.call is not None and not self.call.done()

    def hear(self) -> None:
        """One that was silent and has answered meanwhile is waited for again."""
        answered = self.call is not None and self.call.done() and self.call.exception() is None
        self.silent = self.silent and not answered


class Switchboard:
    """Calls the replicas of a fleet in parallel. Used by one thread at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hmas-fleet")
        self._lines: dict[str, _Line] = {}

    def connect(self, replicas: Mapping[str, Engine]) -> None:
        """These are there from now on; of one that has a new engine, the new one."""
        old = self._lines
        self._lines = {
            name: old[name] if name in old and old[name].engine is engine else _Line(engine)
            for name, engine in sorted(replicas.items())
        }

    @property
    def names(self) -> Collection[str]:
        """Who is connected."""
        return self._lines.keys()

    def ask(
        self, names: Iterable[str], call: Callable[[str, Engine], T], limit_s: float
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Answers by name, and why there is none from the others, both in order of name.

        Args:
            names: whom.
            call: made in a thread for each, with name and engine. What it answers after `limit_s`
                is dropped, so it changes nothing here.
            limit_s: how long all together are waited for.
        """
        lines = {name: self._lines[name] for name in sorted(names)}
        asked = []
        for line in lines.values():
            line.hear()
        for name, line in sorted(lines.items(), key=lambda item: item[1].silent):
            if not line.busy():
                line.call = self._pool.submit(call, name, line.engine)
                asked.append(name)
        wait([c for c in (lines[n].call for n in asked if not lines[n].silent) if c], limit_s)
        answers: dict[str, T] = {}
        away: dict[str, str] = {}
        for name, line in lines.items():
            if name not in asked or line.call is None or not line.call.done():
                line.silent, away[name] = True, f"no answer within {limit_s:g} s"
                continue
            try:
                answers[name] = line.call.result()
            except EngineUnavailable as error:
                away[name] = str(error)
        return answers, away

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
