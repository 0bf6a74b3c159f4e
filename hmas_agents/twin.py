"""How would the last window have gone under another policy?

The twin replays it in the simulator, in a process of its own that is kept warm.
Called by the long horizon, which switches only for a predicted gain above the
twin's own measured error. Without a wall-clock budget (simulated runs) it is
deterministic.
"""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from hmas_agents.config import TwinConfig
from hmas_agents.records import Proposal
from hmas_agents.twin_worker import Job, serve
from serving.contracts import Limits, TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

ERROR_WEIGHT = 0.3
STOP_WAIT_S = 1.0


class _WorkerLostError(Exception):
    """The worker is gone, or busy beyond its budget; says which as a fault."""


class Twin:
    """Predicts attainment under each candidate policy, and keeps score of its own error.

    Attributes:
        error: moving average (weight 0.3) of |predicted - realised|; None before the first.
        faults: what went wrong in the last `predict`, as `code: detail`.
    """

    def __init__(self, config: TwinConfig) -> None:
        self._config = config
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._ready = False
        self.error: float | None = None
        self.faults: list[str] = []

    def start(self) -> None:
        """Start the worker, which takes about 10 s to be ready; does not wait for it."""
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        self._ready = False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True, name="hmas-twin")
        self._process.start()
        theirs.close()

    def wait_ready(self, limit_s: float | None) -> bool:
        """Wait until the started worker can replay; False when `limit_s` was not enough."""
        if not self._ready and self._pipe is not None and self._pipe.poll(limit_s):
            self._pipe.recv()
            self._ready = True
        return self._ready

    def predict(
        self,
        profile: EngineProfile,
        settings: EngineSettings,
        requests: Sequence[TraceRequest],
        candidates: Sequence[Proposal],
        limits: Limits,
        *,
        budget_s: float | None = None,
    ) -> list[float | None]:
        """Attainment (0..1) of the window under each candidate, in their order.

        `requests` are the window's arrivals, the first at 0 s; `limits` are in force
        under every candidate alike; `budget_s` is a wall-clock limit for all of them
        together, None waits for every one. A candidate's figure is None when it was not
        finished in time or failed; `faults` then says why.
        """
        self.faults = []
        self.start()
        deadline_s = None if budget_s is None else time.monotonic() + budget_s
        predictions: list[float | None] = [None] * len(candidates)
        window = tuple(requests)
        try:
            for i, candidate in enumerate(candidates):
                job = Job(profile, settings, window, candidate.policy, candidate.params, limits)
                predictions[i] = self._ask(job, deadline_s)
        except _WorkerLostError as error:
            self.faults.append(str(error))
            self.close()
            self.start()  # warm again by the next window
        return predictions

    def observe(self, predicted: float, realised: float) -> None:
        """A prediction met reality."""
        miss = abs(predicted - realised)
        self.error = (
            miss if self.error is None else self.error + ERROR_WEIGHT * (miss - self.error)
        )

    @property
    def margin(self) -> float:
        """Predicted gain that a switch must exceed: the configured one or the error, if larger."""
        return max(self._config.margin, self.error or 0.0)

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join(STOP_WAIT_S)
            if self._process.is_alive():
                self._process.kill()
        self._pipe = self._process = None

    def _ask(self, job: Job, deadline_s: float | None) -> float | None:
        assert self._pipe is not None
        try:
            if not self.wait_ready(_left_s(deadline_s)):
                self.faults.append("twin_timeout: still starting")
                return None
            self._pipe.send(job)
            if not self._pipe.poll(_left_s(deadline_s)):
                # A worker in the middle of a replay cannot be asked again.
                raise _WorkerLostError("twin_timeout: out of its time budget")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _WorkerLostError(f"twin_failed: the worker ended ({error!r})") from error
        if isinstance(answer, str):
            self.faults.append(f"twin_failed: {answer}")
            return None
        return float(answer)


def _left_s(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
