"""Which replicas of a Ray Serve application are there now? A `Discovery`, by `ray://APP`.

Replicas come with autoscaling and replacement and go with failures: what Ray counts as running is
asked every second. One that is starting is none yet.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping

from serving.engines.protocol import Engine, EngineUnavailable
from serving.fleet.ray_app import SCHEME, SERVER_CLASS
from serving.fleet.ray_replica import RayReplica, RunningReplica, applications

EVERY_S = 1.0
logger = logging.getLogger(__name__)
_OURS = SERVER_CLASS.rpartition(":")[2] + ":"  # Ray puts the class before a deployment's name
Applications = Mapping[str, Mapping[str, list[RunningReplica]]]


class RayReplicas:
    """The replicas of one model in one application of Ray Serve.

    Args:
        url: `ray://APP`, or `ray://APP/DEPLOYMENT` where the application serves several models.
        look_s: within which a replica's snapshot must come.
        ask: what Ray Serve runs; Ray's controller says it.
        clock: seconds, to ask no more often than every second.
    """

    def __init__(
        self,
        url: str,
        look_s: float = math.inf,
        ask: Callable[[], Applications] = applications,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._look_s, self._ask, self._clock = url, look_s, ask, clock
        self._app, _, self._deployment = url.removeprefix(SCHEME).partition("/")
        self._known: dict[str, Engine] = {}
        self._found, self._asked_s = False, -math.inf

    def replicas(self) -> Mapping[str, Engine]:
        """Those that Ray counts as running, by Ray's names; while Ray is silent the last ones.

        Raises:
            EngineUnavailable: Ray never answered, or runs no such application of ours.
        """
        if self._clock() < self._asked_s + EVERY_S:
            return self._known
        try:
            running = self._running(self._ask())
        except EngineUnavailable as error:
            if not self._found:
                raise
            logger.warning("%s: the replicas known last stay: %s", self._url, error)
            self._asked_s = self._clock()
            return self._known
        self._found, self._asked_s = True, self._clock()
        old, look_s = self._known, self._look_s
        self._known = {
            each.replica_id: old.get(each.replica_id) or RayReplica(each, look_s=look_s)
            for each in running
        }
        return self._known

    def _running(self, found: Applications) -> list[RunningReplica]:
        if self._app not in found:
            there = ", ".join(f"{SCHEME}{name}" for name in found) or "none"
            raise EngineUnavailable(
                f"{self._url}: Ray Serve has no application {self._app!r}; there are: {there}"
            )
        ours = {
            name.removeprefix(_OURS): replicas
            for name, replicas in found[self._app].items()
            if name.startswith(_OURS)
        }
        if not ours:
            raise EngineUnavailable(
                f"{self._url}: no deployment of it has the hook: deploy it with `hmas fleet serve`"
            )
        if self._deployment in ours:
            return ours[self._deployment]
        if self._deployment or len(ours) > 1:
            urls = ", ".join(f"{SCHEME}{self._app}/{name}" for name in sorted(ours))
            raise EngineUnavailable(f"{self._url}: say which model's replicas: {urls}")
        return next(iter(ours.values()))
