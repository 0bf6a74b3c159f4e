"""How is a fleet whose members change kept up to date, without waiting for whoever knows them?

They are looked up every few seconds in a thread. While that takes long, or fails, the last good
answer is used, and a line in the log says so.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from serving.engines.protocol import EngineUnavailable, RemoteEngine

EVERY_S = 2.0
_FIRST_WAIT_S = 10.0
_LOG = logging.getLogger(__name__)


class FoundReplicas:
    """Replicas by URL, or by what else leads to them, as `find` has them now.

    Args:
        what: is looked up; for messages.
        find: gives name and URL (of Ray: actor) of each replica; may block, and raise
            EngineUnavailable.
        connect: makes an engine of a URL.
        clock: seconds; only differences count.
        wait_s: for an answer, where there is an earlier one.
    """

    def __init__(
        self,
        what: str,
        find: Callable[[], Mapping[str, str]],
        connect: Callable[[str], RemoteEngine],
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = 1.0,
    ) -> None:
        self._wait_s = wait_s
        self._what, self._find, self._connect, self._clock = what, find, connect, clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hmas-found")
        self._asked_s: float | None = None
        self._call: Future[Mapping[str, str]] | None = None
        self._urls: Mapping[str, str] | None = None
        self._engines: dict[str, RemoteEngine] = {}
        self._problem = ""

    def replicas(self) -> Mapping[str, RemoteEngine]:
        """The replicas of the last good answer, which is at most a few seconds old.

        Raises:
            EngineUnavailable: there has never been one.
        """
        now_s = self._clock()
        if self._call is None and (self._asked_s is None or now_s - self._asked_s >= EVERY_S):
            self._asked_s, self._call = now_s, self._pool.submit(self._find)
        if self._call is not None:
            self._hear(self._call, _FIRST_WAIT_S if self._urls is None else self._wait_s)
        return dict(self._engines)

    def _hear(self, call: Future[Mapping[str, str]], wait_s: float) -> None:
        try:
            urls = call.result(wait_s)
        except FutureTimeout:  # it goes on
            problem = f"{self._what}: no answer within {wait_s:g} s"
        except EngineUnavailable as error:
            self._call, problem = None, f"{self._what}: {error}"
        else:
            self._call, problem = None, ""
            self._use(urls)
        if problem and self._urls is None:
            raise EngineUnavailable(problem)
        if problem != self._problem:
            _LOG.warning("%s", f"{problem}: the last answer is used" if problem else
                         f"{self._what}: found again")  # fmt: skip
        self._problem = problem

    def _use(self, urls: Mapping[str, str]) -> None:
        before, old = self._urls or {}, self._engines
        self._engines = {
            name: old[name] if before.get(name) == url else self._connect(url)
            for name, url in urls.items()
        }
        for name, engine in old.items():
            if self._engines.get(name) is not engine:
                engine.close()
        self._urls = dict(urls)
