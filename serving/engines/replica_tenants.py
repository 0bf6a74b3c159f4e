"""What has each tenant on each replica, and what is it promised there? In virtual time.

What a controller of many replicas sees and does between two stretches of `RunningReplicas`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import WHOLE, Contract, Parts
from serving.core.tenants import DECODE_WORK
from serving.engines.offered import Workload
from serving.engines.replica_state import Hooks
from serving.engines.replicas import RunningReplicas
from serving.perception.lanes import LEAST_LANE_WEIGHT, divided_floors

Table = NDArray[np.float64]  # a row for each replica, a column for each tenant


class ReplicaTenants:
    """The tenants of replicas with hooks.

    Args:
        running: the replicas.
        hook: that they started with; it has given lanes to the senders.
        workload: that they serve.

    Attributes:
        names: of the tenants, by column.
        of_request: the column of each request, shape (requests,).
    """

    def __init__(self, running: RunningReplicas, hook: Hooks, workload: Workload) -> None:
        assert running.hooks is not None
        self._running, self._core, self._workload = running, running.hooks.core, workload
        senders = [one.tenant for one in workload.senders]
        self.names = tuple(dict.fromkeys(senders))
        columns = np.array([self.names.index(name) for name in senders])
        self.of_request = columns[workload.sender]
        firsts = [senders.index(name) for name in self.names]
        self._lanes = hook.core.requests["tenant"][firsts]
        self._replicas = len(running.fleet.replicas)

    def waiting(self) -> Table:
        """Requests that wait."""
        return self._core.tenants["waiting"][:, self._lanes].astype(float)

    def work(self) -> Table:
        """Work done since the start, in tokens as `serving.core.tenants` counts them.

        What preemptions threw away is not in it, so it may shrink for a while.
        """
        sent = int(self._running.fleet.front["routed"][0])
        one = self._running.states.progress[:sent]
        computed = np.minimum(one["computed"], one["prompt"]) - one["cached_tokens"]
        work = np.maximum(computed, 0) + DECODE_WORK * (one["known"] - one["prompt"])
        return self._sum(work, sent)

    def demand(self) -> Table:
        """Tokens of the requests that came since the start, prompts and answers."""
        sent = int(self._running.fleet.front["routed"][0])
        tokens = self._workload.prompt_tokens[:sent] + self._workload.output_tokens[:sent]
        return self._sum(tokens, sent)

    def promise(self, k: int, contract: Contract, parts: Parts) -> None:
        """Put a replica's parts of weights and floors in force, as lanes do.

        What a request counts for stays as it was; only `kappa` and triage would ask for it.

        Args:
            k: the replica.
            contract: of the fleet.
            parts: of this replica.
        """
        weights = [
            contract.terms_of(name).weight * parts.get(name, WHOLE).share for name in self.names
        ]
        promised = {name: terms.floor for name, terms in contract.tenants.items()}
        here = divided_floors(promised, parts)
        lanes, rows = self._core.tenants[k], self._lanes
        lanes["weight"][rows] = np.maximum(weights, LEAST_LANE_WEIGHT)
        lanes["floor"][rows] = floors = np.array([here.get(name, 0.0) for name in self.names])
        lanes["owed"][rows] *= floors > 0.0

    def _sum(self, amounts: NDArray[Any], sent: int) -> Table:
        places = self._running.fleet.replica_of[:sent] * len(self.names) + self.of_request[:sent]
        size = self._replicas * len(self.names)
        sums = np.bincount(places, amounts, size).astype(np.float64)
        return sums.reshape(self._replicas, -1)
