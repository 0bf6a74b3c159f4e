"""Which replicas are there now? The seam between a fleet and what starts its servers.

Implemented by URLs as given, a DNS name, a label of Kubernetes, and Ray Serve; read by
`FleetEngine` at every look.
"""

from collections.abc import Mapping
from typing import Protocol

from serving.engines.protocol import Engine


class Discovery(Protocol):
    """Finds the replicas of a fleet. Called by one thread at a time."""

    def replicas(self) -> Mapping[str, Engine]:
        """The replicas by name, as they are now or were when last found.

        A replica is the same object for as long as it keeps its name. One that does not answer
        stays in here for as long as whatever runs the servers counts it as one.

        Raises:
            EngineUnavailable: it cannot be found out at all, and never was.
        """
        ...


class FixedReplicas:
    """Replicas that are known from the start: URLs as given, or engines in virtual time."""

    def __init__(self, replicas: Mapping[str, Engine]) -> None:
        self._replicas = dict(replicas)

    def replicas(self) -> Mapping[str, Engine]:
        """All of them, always."""
        return self._replicas
